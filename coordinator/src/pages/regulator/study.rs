//! One study from its application to its last receipt, with the names of whoever signed.
//!
//! Promises: every document of the study that is kept here is on it, in the order of the procedure. Deliberately absent: any
//! released value; a result's page has them when it is public.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    output_review::OutputReview,
    pages::{Language, grouped},
    permit::{OutputReview as Rule, Permit},
    receipt::DecidedBy,
    refusal::{Code, Refusal},
    review::{Review, Step, Verdict},
};

use super::{
    asked::Asked,
    names::{Names, Signer},
    search::{answers, purposes, result},
    table::{Cell, Line, Table, part, say, time},
};
use crate::{
    documents::unavailable,
    store::{Kind, Store},
    use_register::{Dated, Parts, Use, words},
};

/// The most reviews of one application or result.
const MAX_REVIEWS: u32 = 1000;

/// Applications with all versions.
pub fn applications(language: Language, parts: &Parts, names: &Names) -> Table {
    let columns = [
        ("Application", "申請"),
        ("Version", "版"),
        ("Handed in", "提出日時"),
        ("Applicant", "申請者"),
        ("Principal investigator", "研究責任者"),
        ("Signed by", "署名者"),
        ("Description of the use", "利用の内容"),
    ];
    let mut found: Vec<_> = parts.applications.iter().collect();
    found.sort_by_key(|dated| (&dated.document.id, dated.document.version));
    let row = |dated: &Dated<_>| {
        let application: &sekisho_protocol::application::Application = &dated.document;
        [
            document(&application.id, dated.digest),
            Cell::number(application.version.into()),
            Cell::time(dated.put_at),
            Cell::words(&application.applicant.name),
            Cell::words(&application.principal_investigator),
            Cell::signers(language, &names.all(dated.signers.iter().copied())),
            Cell::words(&application.use_description),
        ]
    };
    let caption = language.say("Applications", "申請");
    Table::new(language, caption, columns).with(found.into_iter().map(row))
}

/// A document's name, which leads to its entry in the log.
fn document(name: &str, digest: Digest) -> Cell {
    Cell::linked(name, format!("/regulator/documents/{digest}"))
}

/// What members of the committee said of the applications.
///
/// # Errors
/// When the database cannot be read.
pub async fn reviews(language: Language, store: &Store, parts: &Parts, names: &Names) -> Result<Table, Refusal> {
    let columns = [
        ("At", "日時"),
        ("Member", "委員"),
        ("Application", "申請"),
        ("Question", "審査の段階"),
        ("Verdict", "判定"),
        ("Reasons", "理由"),
    ];
    let mut ids: Vec<&str> = parts.applications.iter().map(|dated| dated.document.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows = Vec::new();
    for id in ids {
        for kept in store.kept(Kind::Review, Some(id), MAX_REVIEWS).await.map_err(unavailable)?.into_iter().rev() {
            let envelope = Envelope::from_json::<Review>(&kept.envelope)?;
            let (review, digest) = envelope.peek::<Review>()?;
            rows.push([
                Cell::time(kept.put_at),
                Cell::signers(language, &names.all(envelope.key_ids())),
                document(id, digest),
                Cell::words(step(language, review.step)),
                Cell::words(verdict(language, review.verdict)),
                Cell::words(review.reasons),
            ]);
        }
    }
    let caption = language.say("Reviews of the application", "申請の審査");
    Ok(Table::new(language, caption, columns).with(rows))
}

fn step(language: Language, step: Step) -> &'static str {
    match step {
        Step::Completeness => language.say("Is it complete?", "記載は完全か"),
        Step::Lawfulness => language.say("May it be granted?", "許可できるか"),
    }
}

fn verdict(language: Language, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Comment => language.say("Comment", "意見"),
        Verdict::ChangesRequested => language.say("A new version is needed", "修正が必要"),
        Verdict::Complete => language.say("Complete", "記載は完全"),
        Verdict::Approve => language.say("Approve", "承認"),
        Verdict::Refuse => language.say("Refuse", "不承認"),
        Verdict::Conflict => language.say("Conflict of interest", "利益相反"),
    }
}

/// Permits in all versions, and refusals.
pub fn decisions(language: Language, uses: &[Use], parts: &Parts, names: &Names) -> Table {
    let columns = [
        ("Decision", "決定"),
        ("Number", "番号"),
        ("Version", "版"),
        ("Date", "決定日"),
        ("State", "状態"),
        ("Signed by", "署名者"),
        ("Reasons", "理由"),
        ("Valid from", "有効期間の開始"),
        ("Valid until", "有効期間の終了"),
        ("Most per query (micro-rho)", "1回の上限（micro-rho）"),
        ("Most in all, per hospital (micro-rho)", "医療機関ごとの上限（micro-rho）"),
        ("Listed queries (SHA-256): kind of release", "許可された照会（SHA-256）：公表の種類"),
    ];
    let row = |decision: &crate::use_register::DecisionEntry| {
        let permit = parts.permits.iter().map(|part| &part.permit).find(|permit| permit.digest == decision.digest);
        let refusal = parts.refusals.iter().find(|refusal| refusal.digest == decision.digest);
        let signers = permit.map(|p| &p.signers).or(refusal.map(|r| &r.signers)).into_iter().flatten();
        let of = |field: &dyn Fn(&Permit) -> Cell| permit.map(|permit| field(&permit.document)).unwrap_or_default();
        let mut reasons = Cell::words(&decision.reasons);
        if let Some(revoked) = &decision.revoked {
            let said = language.say("Revoked", "取消し");
            reasons.lines.push(Line { text: format!("{said}, {}: {}", time(revoked.at), revoked.reasons), link: None });
        }
        [
            Cell::coded(language, &decision.outcome),
            document(&decision.id, decision.digest),
            Cell::number(decision.version.into()),
            Cell::day(decision.date),
            Cell::coded(language, &decision.state),
            Cell::signers(language, &names.all(signers.copied())),
            reasons,
            of(&|permit| Cell::time(permit.validity.from)),
            of(&|permit| Cell::time(permit.validity.to)),
            of(&|permit| Cell::number(permit.dp.micro_rho_per_query.get())),
            of(&|permit| Cell::number(permit.dp.micro_rho_total.get())),
            of(&|permit| listed(language, permit)),
        ]
    };
    let caption = language.say("Decisions: every version of each permit, and refusals", "決定（許可の各版と不許可）");
    Table::new(language, caption, columns).with(uses.iter().flat_map(|entry| &entry.decisions).map(row))
}

/// The queries that a permit lists, with how their answers are released.
fn listed(language: Language, permit: &Permit) -> Cell {
    let Some(queries) = &permit.allowed_queries else {
        return Cell::words(language.say("any within the rest: noised", "範囲内の任意の照会（ノイズ付き）"));
    };
    Cell::list(queries.iter().map(|query| {
        let (en, ja) = query.release.in_words();
        format!("{}: {}", query.sha256.short(), language.say(en, ja))
    }))
}

/// Everybody whom a permit or an application names.
pub fn persons(language: Language, parts: &Parts, names: &Names) -> Table {
    let columns = [
        ("Person", "氏名または識別子"),
        ("What they are", "役割"),
        ("Key fingerprint", "鍵の指紋"),
        ("Named in", "記載文書"),
    ];
    let mut rows: Vec<(Signer, String)> = Vec::new();
    for permit in parts.permits.iter().map(|part| &part.permit.document) {
        let named = format!("{} {} {}", language.say("permit", "許可"), permit.id, permit.version);
        rows.extend(permit.authorised_persons.iter().map(|p| (names.of(p.key_fingerprint), named.clone())));
    }
    for application in parts.applications.iter().map(|dated| &dated.document) {
        let named = format!("{} {} {}", language.say("application", "申請"), application.id, application.version);
        rows.extend(application.people.iter().map(|p| (names.of(p.key_fingerprint), named.clone())));
    }
    rows.sort();
    let row = |people: &[(Signer, String)]| {
        let (signer, _) = &people[0];
        [
            Cell::words(signer.name.as_deref().unwrap_or_default()),
            Cell::words(say(language, &signer.role)),
            Cell::words(signer.key.to_string()),
            Cell::list(people.iter().map(|(_, named)| named.clone())),
        ]
    };
    let caption = language.say("Persons who may ask, or would", "照会を許可された者、または申請した者");
    Table::new(language, caption, columns).with(rows.chunk_by(|(a, _), (b, _)| a.key == b.key).map(row))
}

/// What each hospital said to each version of each permit.
pub fn holders(language: Language, parts: &Parts) -> Table {
    let columns = [
        ("Hospital", "医療機関"),
        ("Permit", "許可"),
        ("Version", "版"),
        ("Answer", "回答"),
        ("Code", "コード"),
        ("At", "日時"),
        ("Decided by", "決定方法"),
        ("Set aside (micro-rho)", "確保した予算（micro-rho）"),
        ("Reason", "理由"),
        ("No guarantee of differential privacy since", "差分プライバシーの保証がなくなった日"),
    ];
    let mut rows = Vec::new();
    for part in &parts.permits {
        let permit = &part.permit.document;
        for name in permit.holders() {
            let said = part.acceptances.iter().find(|said| said.node == name);
            let answer = match said.map(|said| said.refused) {
                None => language.say("No answer yet", "未回答"),
                Some(None) => language.say("Accepted", "承諾"),
                Some(Some(Code::PermitWaiting)) => language.say("Deciding", "検討中"),
                Some(Some(_)) => language.say("Refused", "拒否"),
            };
            let by = said.map(|said| match said.decided_by {
                DecidedBy::Policy => language.say("the hospital's policy", "医療機関の方針（自動）"),
                DecidedBy::Hand => language.say("a person", "担当者"),
            });
            let code = said.and_then(|said| said.refused).map(Code::as_str).unwrap_or_default();
            let since = parts.exact_since.get(&name).copied().map(Cell::day);
            rows.push([
                Cell::words(name),
                document(&permit.id, part.permit.digest),
                Cell::number(permit.version.into()),
                Cell::words(answer),
                Cell::words(code),
                said.map(|said| Cell::time(said.at)).unwrap_or_default(),
                Cell::words(by.unwrap_or_default()),
                said.map(|said| Cell::number(said.earmark.get())).unwrap_or_default(),
                Cell::words(said.and_then(|said| said.reason.clone()).unwrap_or_default()),
                since.unwrap_or_default(),
            ]);
        }
    }
    rows.sort_by_key(|row| (row[0].plain(), row[1].plain(), row[2].plain()));
    let caption = language.say("Hospitals' answers to the permits", "許可に対する各医療機関の回答");
    Table::new(language, caption, columns).with(rows)
}

/// Every round: who asked what when, what each hospital did and charged, by which receipt.
pub fn rounds(language: Language, found: &[Asked]) -> Table {
    let columns = [
        ("Asked at", "照会日時"),
        ("Run", "実行番号"),
        ("Permit version", "許可の版"),
        ("Asked by", "照会者"),
        ("Question (SQL)", "照会文（SQL）"),
        ("Hospitals", "医療機関"),
        ("Release", "公表の種類"),
        ("Receipts: charge (micro-rho)", "受領証：消費（micro-rho）"),
        ("What became of it", "結果の扱い"),
        ("Result", "結果"),
    ];
    let row = |asked: &Asked| {
        let charges = asked.holders.iter().filter_map(|holder| {
            let charge = holder.receipt.as_ref()?;
            let again = if charge.again {
                language.say(" (served again, not charged)", "（再提供、消費なし）")
            } else {
                ""
            };
            let amount = grouped(charge.micro_rho);
            Some(Line {
                text: format!("{}: {amount}{again}, {}", holder.name, charge.receipt.short()),
                link: Some(format!("/regulator/log?statement={}", charge.statement)),
            })
        });
        [
            Cell::time(asked.at),
            Cell::number(asked.run.into()),
            Cell::number(asked.version.into()),
            Cell::list(asked.persons.iter().map(Signer::label)),
            Cell::sql(asked.sql.as_deref()),
            answers(language, asked),
            asked.release_kind.as_ref().map(|kind| Cell::coded(language, kind)).unwrap_or_default(),
            Cell::lines(charges),
            Cell::coded(language, &asked.state),
            result(asked),
        ]
    };
    let caption = language.say("Every round, the earliest first", "すべての照会（古い順）");
    let mut table = Table::new(language, caption, columns).with(found.iter().map(row));
    table.anchors = found.iter().map(|asked| part(&asked.round)).collect();
    table
}

/// The reviews of the study's results.
///
/// # Errors
/// When the database cannot be read.
pub async fn output_reviews(
    language: Language,
    store: &Store,
    found: &[Asked],
    names: &Names,
) -> Result<Table, Refusal> {
    let columns =
        [("At", "日時"), ("Reviewer", "審査者"), ("Result", "結果"), ("Verdict", "判定"), ("Reasons", "理由")];
    let mut results: Vec<Digest> = found.iter().filter_map(|asked| asked.result).collect();
    results.sort();
    results.dedup();
    let mut rows = Vec::new();
    for result in results {
        let name = result.to_string();
        let kept = store.kept(Kind::OutputReview, Some(&name), MAX_REVIEWS).await.map_err(unavailable)?;
        for kept in kept.into_iter().rev() {
            let envelope = Envelope::from_json::<OutputReview>(&kept.envelope)?;
            let (review, _) = envelope.peek::<OutputReview>()?;
            let row = [
                Cell::time(review.at),
                Cell::signers(language, &names.all(envelope.key_ids())),
                Cell::linked(result.short(), format!("/releases/{result}")),
                Cell::coded(language, &words::verdict(review.verdict)),
                Cell::words(review.reasons),
            ];
            rows.push((review.at, row));
        }
    }
    rows.sort_by_key(|(at, _)| *at);
    let caption = language.say("Reviews of results before they left", "結果の提供前の審査");
    Ok(Table::new(language, caption, columns).with(rows.into_iter().map(|(_, row)| row)))
}

/// Where decisions and results were made public.
pub fn publications(language: Language, uses: &[Use]) -> Table {
    let columns = [("At", "日時"), ("What", "公表されたもの"), ("Where", "公表先")];
    let row = |published: &crate::use_register::PublicationEntry| {
        let what = match published.what.as_str() {
            "decision" => language.say("Decision", "決定"),
            _ => language.say("Results", "結果"),
        };
        [Cell::time(published.at), Cell::words(what), Cell::linked(&published.url, published.url.clone())]
    };
    let caption = language.say("Publications", "公表");
    Table::new(language, caption, columns).with(uses.iter().flat_map(|entry| &entry.publications).map(row))
}

/// The study in a few lines.
pub fn facts(language: Language, uses: &[Use]) -> Vec<(String, Cell)> {
    let fact = |english: &str, japanese: &str, cell: Cell| (language.say(english, japanese).to_string(), cell);
    let mut facts = Vec::new();
    for entry in uses {
        let mut holders: Vec<String> = entry.data.iter().flat_map(|table| table.holders.clone()).collect();
        holders.sort();
        holders.dedup();
        let cost = entry.holders.iter().map(|holder| holder.micro_rho).fold(0, u64::saturating_add);
        let day = |at: Option<DateTime<Utc>>| at.map_or_else(|| "–".into(), |at| at.date_naive().to_string());
        facts.extend([
            fact("Application or permit", "申請または許可", Cell::words(&entry.id)),
            fact("State", "状態", Cell::coded(language, &entry.state)),
            fact("Organisation", "利用者（組織）", Cell::words(&entry.data_user)),
            fact("Legal basis", "法的根拠", Cell::coded(language, &entry.basis)),
            fact("Purposes", "利用目的", purposes(language, &entry.purposes)),
            fact("Hospitals", "医療機関", Cell::list(holders)),
            fact("Period", "利用期間", Cell::words(format!("{} – {}", day(entry.period.from), day(entry.period.to)))),
            fact("Runs of questions", "実行された照会", Cell::words(grouped(entry.queries.len() as u64))),
            fact("Cost, all hospitals", "全医療機関での消費", Cell::words(format!("{} micro-rho", grouped(cost)))),
        ]);
    }
    facts
}

/// Whether some permit of the study asks for reviews of results.
pub fn reviews_results(parts: &Parts) -> bool {
    parts.permits.iter().any(|part| part.permit.document.output_review == Rule::TwoPerson)
}
