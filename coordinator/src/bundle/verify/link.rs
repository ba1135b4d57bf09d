//! The links of the chain from a few trusted keys to one published number, in plain words.

use serde::{Deserialize, Serialize};

use crate::use_register::Text;

macro_rules! links {
    ($($variant:ident = $code:literal: $shown:literal / $shown_ja:literal; $means:literal / $means_ja:literal; $do:literal / $do_ja:literal;)*) => {
        /// One link of the chain.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Link { $(#[doc = $shown] $variant,)* }

        impl Link {
            /// Every link, in the order in which they are checked.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, which is never changed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What is shown by it.
            pub fn shown(self) -> Text {
                match self { $(Self::$variant => text($shown, $shown_ja),)* }
            }

            /// What it means when it breaks.
            pub fn meaning(self) -> Text {
                match self { $(Self::$variant => text($means, $means_ja),)* }
            }

            /// What to do then.
            pub fn advice(self) -> Text {
                match self { $(Self::$variant => text($do, $do_ja),)* }
            }
        }
    };
}

fn text(en: &str, ja: &str) -> Text {
    Text { ja: ja.into(), en: en.into() }
}

links! {
    Files = "files": "Files are complete and as listed" / "ファイルがすべてあり、一覧のとおりである";
        "a file was changed, added or left out after the bundle was made" / "作成後に、ファイルが変更、追加、または削除された";
        "get the bundle again from its source" / "発行元からもう一度入手する";
    Governance = "governance": "The governance key gave way to others as it says" / "統治鍵の交代が正しい";
        "somebody other than the access body may have named the members" / "審査機関以外の者が参加者を定めたおそれがある";
        "compare the governance key by telephone with the access body" / "審査機関に電話で統治鍵を確かめる";
    Committee = "committee": "Each committee was elected by the one before" / "各委員会は前の委員会が選んだ";
        "the members who granted the permit may be no members" / "許可した者が委員でないおそれがある";
        "compare the committee by telephone with the access body" / "審査機関に電話で委員会を確かめる";
    Status = "status": "The status is signed by the governance key" / "状態文書に統治鍵の署名がある";
        "which keys are void is not known" / "無効な鍵が分からない";
        "get the bundle again from its source" / "発行元からもう一度入手する";
    Roster = "roster": "The roster is signed by the governance key" / "名簿に統治鍵の署名がある";
        "which keys belong to the hospitals is not known" / "どの鍵が病院のものか分からない";
        "compare the governance key by telephone with the access body" / "審査機関に電話で統治鍵を確かめる";
    Permit = "permit": "A quorum of the committee signed the permit" / "許可証に委員会の定足数の署名がある";
        "nobody proves that this use was granted" / "この利用が許可されたと証明できない";
        "ask the committee whether it granted this permit" / "委員会に許可の有無を問い合わせる";
    Schema = "schema": "The schema is the permit's, and signed" / "スキーマは許可証のもので、署名がある";
        "what the numbers count is not known" / "数値が何を数えたものか分からない";
        "ask the access body for the schema" / "審査機関にスキーマを求める";
    Query = "query": "A person of the permit signed the question, and it is within the permit" / "許可証の人が照会に署名し、照会は許可の範囲内である";
        "this question was not asked by whom it should have been, or was not allowed" / "照会者が正しくないか、許可されていない照会である";
        "ask the committee and the data user" / "委員会と利用者に問い合わせる";
    Statement = "statement": "The coordinator signed its account of this result" / "調整役がこの結果の記録に署名した";
        "the result is not one that the coordinator released" / "調整役が出した結果ではない";
        "ask the coordinator's operator for the bundle" / "調整役の運営者に求める";
    Receipt = "receipt": "The hospital signed what it released and charged" / "病院が、出した内容と課金に署名した";
        "the hospital does not stand for this release" / "病院はこの回答を保証していない";
        "ask the hospital for its receipt of this run" / "病院にこの回の受領証を問い合わせる";
    Release = "release": "The numbers are those that the hospital signed for" / "数値は、病院が署名したものである";
        "the hospital's numbers were changed, or are of another question" / "病院の数値が変更されたか、別の照会のものである";
        "ask the hospital to make the run again (`sekisho-node inspect replay`)" / "病院に再計算 (`sekisho-node inspect replay`) を求める";
    Acceptance = "acceptance": "The hospital accepted the permit" / "病院が許可証を受け入れた";
        "the hospital may not have agreed to this use" / "病院がこの利用に同意していないおそれがある";
        "ask the hospital" / "病院に問い合わせる";
    Plan = "plan": "The question was understood as the hospitals understood it" / "照会の解釈が病院の解釈と一致する";
        "the hospitals computed something else than the question says, or this software is of another version" / "病院が別のものを計算したか、ソフトウェアの版が異なる";
        "verify with the version of sekisho that the receipts name; if that fails too, ask the hospitals" / "受領証にある版の sekisho で確かめ、それでも失敗すれば病院に問い合わせる";
    Result = "result": "The tables are what the hospitals' numbers come to" / "表は、病院の数値を合わせたものと一致する";
        "the published table is not what the hospitals released" / "公表された表は、病院が出した数値と一致しない";
        "do not use the table; tell the access body" / "表を使わず、審査機関に知らせる";
    Review = "review": "Two members of the committee let the result out, where the permit wants it" / "許可証が求める場合、委員二名が結果の持ち出しを認めた";
        "the result left without the reviewers' consent" / "審査なしに結果が持ち出された";
        "tell the access body" / "審査機関に知らせる";
    Checkpoint = "checkpoint": "The log's checkpoint is signed and witnessed as you want" / "ログのチェックポイントに署名と必要な証人がある";
        "the coordinator could show you another history than it shows others" / "調整役が、人によって異なる履歴を見せているおそれがある";
        "get a newer bundle, or compare the checkpoint with a hospital's" / "新しい版を入手するか、病院のチェックポイントと比べる";
    Log = "log": "Each signed document is in the coordinator's log" / "署名された各文書が調整役のログにある";
        "a document was made, changed or kept back after the fact" / "文書が後から作成、変更、または隠された";
        "keep the bundle as evidence and tell the access body" / "証拠として保存し、審査機関に知らせる";
    HospitalLog = "hospital_log": "The receipt is in the hospital's own log" / "受領証が病院自身のログにある";
        "the hospital may show its inspectors another history" / "病院が検査者に別の履歴を見せているおそれがある";
        "keep the bundle as evidence and ask the hospital for its log" / "証拠として保存し、病院にログを求める";
}

/// What no bundle proves.
pub fn not_proved() -> Vec<Text> {
    vec![
        text(
            "that the hospitals' data are right: a replay on a hospital's premises shows what was counted (`sekisho-node inspect replay`)",
            "病院のデータが正しいこと(病院内での再計算 `sekisho-node inspect replay` で確かめられます)",
        ),
        text(
            "of an exact release, that the hospital hid enough and looked at its earlier ones: the rules are the permit's, the exact numbers are not here",
            "正確な集計について、病院での秘匿が十分であることと、過去の公表との照合(規則は許可証のものですが、秘匿前の数値はここにありません)",
        ),
        text(
            "that nothing else was asked: a log does not show what was never entered",
            "ほかに照会がなかったこと(ログは、記録されなかったものを示しません)",
        ),
        text(
            "that roster and status are the newest: they are those of the day of the export",
            "名簿と状態文書が最新であること(書き出した日のものです)",
        ),
        text(
            "what was applied for, and that no reviewer had a conflict of interest that this permit does not show: applications are not public",
            "申請の内容と、この許可証に現れない利益相反がないこと(申請は公開されません)",
        ),
    ]
}
