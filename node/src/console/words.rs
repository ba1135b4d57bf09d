//! Words and numbers as pages write them, in English and Japanese. Templates hand over references, or values.

use std::borrow::Borrow;

use chrono::{DateTime, Utc};
use sekisho_protocol::{alert::Rule, pages, permit::Statistic, units::MicroRho};

use crate::ledger::{Act, Decided, ExactRequest};

/// The same in English and Japanese.
pub(super) type Pair = (&'static str, &'static str);

/// A point in time, to the minute.
pub(super) fn time(at: &DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// A number with its thousands apart.
pub(super) fn grouped(number: impl Borrow<u64>) -> String {
    pages::grouped(*number.borrow())
}

/// An amount of the privacy budget, in micro-rho.
pub(super) fn rho(amount: impl Borrow<MicroRho>) -> String {
    grouped(amount.borrow().get())
}

/// How much `part` is of `whole`, in tenths of a percent: at most 1000.
pub(super) fn permille(part: &MicroRho, whole: &MicroRho) -> u64 {
    let (part, whole) = (u128::from(part.get()), u128::from(whole.get()));
    (part * 1000).checked_div(whole).map_or(0, |share| u64::try_from(share.min(1000)).unwrap_or(1000))
}

/// An argument of a command line, as a shell reads it back.
pub(super) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.into();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

pub(super) const fn statistic(statistic: &Statistic) -> Pair {
    match statistic {
        Statistic::Count => ("counts of rows", "件数"),
        Statistic::CountDistinct => ("counts of patients", "患者数"),
        Statistic::Sum => ("sums", "合計"),
        Statistic::Avg => ("averages", "平均"),
        Statistic::Variance => ("variances", "分散・標準偏差"),
        Statistic::Covariance => ("covariances", "共分散・相関"),
        Statistic::Quantile => ("quantiles", "中央値・分位数"),
        Statistic::Extreme => ("minima and maxima", "最小・最大"),
    }
}

pub(super) const fn act(act: &Act) -> Pair {
    match act {
        Act::AcceptPermit => ("accepted the permit", "許可証を受け入れ"),
        Act::RefusePermit => ("refused the permit", "許可証を拒否"),
        Act::Suspend => ("suspended", "停止"),
        Act::Resume => ("resumed", "再開"),
        Act::ReleaseExact => ("let out the exact result", "正確な集計を公開"),
        Act::RefuseExact => ("refused the exact result", "正確な集計を拒否"),
        Act::SeeAlerts => ("looked at the alerts", "警報を確認"),
    }
}

/// The mark of the chip of an exact request's state, and the state.
pub(super) fn exact(request: &ExactRequest) -> (&'static str, Pair) {
    match (request.decision.as_ref().map(|decision| decision.decided), request.made) {
        (None, _) => ("wait", ("waits for a person", "判断待ち")),
        (Some(Decided::Released), false) => ("wait", ("let out, and not made yet", "公開処理の途中")),
        (Some(Decided::Released), true) => ("ok", ("released", "公開済み")),
        (Some(Decided::Refused), _) => ("stop", ("refused by a person", "拒否")),
        (Some(Decided::TooClose), _) => ("stop", ("too close to an earlier release", "過去の公開に近く拒否")),
    }
}

pub(super) const fn rule(rule: &Rule) -> Pair {
    match rule {
        Rule::UnexpectedPeer => ("Somebody else than the coordinator", "予期しない相手"),
        Rule::Refusals => ("A burst of refused queries", "拒否の続発"),
        Rule::NoAnswer => ("Charged queries without an answer", "回答なしの続発"),
        Rule::StudyBudget => ("A study spends its budget fast", "研究の予算の急な消費"),
        Rule::ForkedLog => ("A log that does not continue what it was", "ログの分岐"),
        Rule::LifetimeBudget => ("The lifetime budget is spent fast", "生涯予算の急な消費"),
    }
}

/// What a check of `/readyz` looks at.
pub(super) fn check(name: &str) -> (&str, &str) {
    match name {
        "database" => ("The database takes a writer", "データベースに書き込める"),
        "data_sets" => ("Data sets have a usable snapshot", "データセットのスナップショットが使える"),
        "roster" => ("The roster is in force", "名簿が有効"),
        "status" => ("The status is in force", "状態文書が有効"),
        "coordinator" => ("The coordinator is reached", "コーディネーターに接続"),
        other => (other, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (number, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expect);
        }
    }

    #[test]
    fn a_share_is_at_most_whole_and_of_nothing_is_nothing() {
        let rho = |amount| MicroRho::try_from(amount).unwrap();
        for (part, whole, expect) in [(0, 0, 0), (5, 0, 0), (1, 3, 333), (3, 3, 1000), (9, 3, 1000)] {
            assert_eq!(permille(&rho(part), &rho(whole)), expect, "{part} of {whole}");
        }
    }

    #[test]
    fn an_argument_is_what_a_shell_reads_back() {
        for (argument, expect) in [
            ("/srv/node.toml", "/srv/node.toml"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(rm)", "'$(rm)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(argument), expect);
        }
    }
}
