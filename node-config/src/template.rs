//! The commented configuration file that `sekisho-node init` writes.

use std::fmt::Write;

use sekisho_protocol::{committee::CommitteeMember, keys::PublicKey, orders::Regulator};
use toml::Value;

use crate::{
    Coordinator,
    file::{BudgetFile, LimitsFile, LogFile, SnapshotsFile, WatchFile},
    preset::register_presets,
};

/// What a new configuration file says beside the defaults.
#[derive(Clone, Debug)]
pub struct TemplateValues {
    /// The hospital's name on the roster.
    pub name: String,
    /// The folder of the node's state, absolute or relative to the file.
    pub state_dir: String,
    /// The file of the transport key.
    pub transport_key: String,
    /// The file of the signing key.
    pub signing_key: String,
    /// Whom the node connects to.
    pub coordinator: Coordinator,
    /// Signs roster and status.
    pub governance_key: PublicKey,
    /// How many of the committee must sign a permit.
    pub committee_quorum: usize,
    /// Who may sign permits.
    pub committee: Vec<CommitteeMember>,
    /// Roles that must be among the signers.
    pub required_roles: Vec<String>,
    /// Two signers of one role count once.
    pub distinct_roles: bool,
    /// Whose orders are obeyed.
    pub regulators: Vec<Regulator>,
    /// `jp-ngmia` or `eu-ehds`.
    pub register_rule: String,
    /// The data sets' mapping files.
    pub datasets: Vec<String>,
    /// Other amounts than the default, in micro-rho: lifetime and per query.
    pub budget: Option<(u64, u64)>,
}

/// A configuration file with `values` and every default, commented in Japanese and English.
#[expect(clippy::too_many_lines, reason = "most of it is one text")]
pub fn template(values: &TemplateValues) -> String {
    let text = |text: &str| Value::String(text.into()).to_string();
    let mut committee = String::new();
    for CommitteeMember { name, role, key } in &values.committee {
        // Writing to a string cannot fail.
        let _ = write!(
            committee,
            "\n[[trust.committee]]\nname = {}\nrole = {}\nkey = {}\n",
            text(name),
            text(role),
            text(&key.to_string())
        );
    }
    let mut regulators = String::new();
    for Regulator { name, key } in &values.regulators {
        let _ = write!(regulators, "\n[[trust.regulators]]\nname = {}\nkey = {}\n", text(name), text(&key.to_string()));
    }
    if regulators.is_empty() {
        regulators = "\n# [[trust.regulators]]\n# name = \"ministry\"\n# key = \"…\"\n".into();
    }
    let mut datasets = String::new();
    for mapping in &values.datasets {
        let _ = write!(datasets, "\n[[datasets]]\nmapping = {}\n", text(mapping));
    }
    if datasets.is_empty() {
        datasets = "\n# [[datasets]]\n# mapping = \"data/dataset.toml\"\n".into();
    }
    let (snapshots, limits, log) = (SnapshotsFile::default(), LimitsFile::default(), LogFile::default());
    format!(
        r#"# Sekisho ノードの設定 / configuration of a Sekisho node
# パスはこのファイルからの相対 / paths are relative to this file

# 名簿での病院名 / the hospital's name on the roster
name = {name}
# 状態の保存先 (node.db) / where the state is kept
state_dir = {state_dir}

# 秘密鍵のファイル (0600) / files of the private keys
[keys]
transport = {transport}
signing = {signing}

# 接続先 / whom the node connects to
[coordinator]
address = {address}
peer_id = {peer_id}

# 署名を信頼する鍵 / whose signatures count
[trust]
governance_key = {governance}
# 許可に必要な署名数 (2以上を推奨) / signatures that a permit needs (2 or more recommended)
committee_quorum = {quorum}
# 署名者に必ず含まれる役割 / roles that must be among the signers
required_roles = {roles}
# 同じ役割の署名は一つと数える / two signers of one role count once
distinct_roles = {distinct}
{committee}
# 停止命令に従う監督機関 (任意) / regulators whose orders to suspend are obeyed (optional)
{regulators}
{budget}
# 病院の方針 (Cedar)。直したら再起動 / the hospital's own policy in Cedar; restart after a change
[policy]
file = "policy.cedar"

# 患者の通知とオプトアウト / notice and opt-out
[register]
# "jp-ngmia" (次世代医療基盤法) または "eu-ehds"
rule = {rule}
# 通知から利用までの日数 (延ばせるが、短くはできない) / days between notice and first use: may be lengthened, never shortened
{days}

# 正確な集計 (任意)。差分プライバシーの保証はなくなる。人が一件ずつ確認する (docs/node.md)
# exact results (optional): no guarantee of differential privacy holds after the first; a person looks at each (docs/node.md)
# [exact]
# min_patients = 10

# 院内システムからの登録と照会 (任意、このマシンからのみ) / the hospital's own systems (optional, this machine only)
# [local]
# address = "127.0.0.1:8816"
# token_file = "local-tokens"

# 管理画面 (任意、このマシンのブラウザからのみ) / pages for the operator (optional, this machine only)
# [console]
# address = "127.0.0.1:8819"
# token_file = "console-tokens"

# データの対応表 / which source is which table
{datasets}
# スナップショット: 並べ替えに使うメモリ、prune が残す数 / memory of the sort, how many `data prune` keeps
[snapshots]
memory_mb = {sort}
keep = {keep}

# クエリの制限 / bounds of a query
[limits]
query_timeout_s = {timeout}
memory_mb = {memory}
# 回答は到着からこの時間後に、間に合わなければさらに query_timeout_s 後に送る
# answers leave this long after the request, or query_timeout_s later
answer_step_ms = {step}
max_concurrent_queries = {concurrent}
max_rows = {rows}

{watch}
# ログ / log: format "text" | "json", level "error" | "warn" | "info" | "debug"
[log]
format = {format}
level = {level}
"#,
        name = text(&values.name),
        state_dir = text(&values.state_dir),
        transport = text(&values.transport_key),
        signing = text(&values.signing_key),
        address = text(&values.coordinator.address),
        peer_id = text(&values.coordinator.peer_id),
        governance = text(&values.governance_key.to_string()),
        quorum = values.committee_quorum,
        roles = Value::from(values.required_roles.clone()),
        distinct = values.distinct_roles,
        regulators = regulators.trim_start(),
        budget = budget_table(values.budget),
        rule = text(&values.register_rule),
        days = register_days(&values.register_rule),
        watch = watch_table(),
        datasets = datasets.trim_start(),
        sort = snapshots.memory_mb,
        keep = snapshots.keep,
        timeout = limits.query_timeout_s,
        memory = limits.memory_mb,
        step = limits.answer_step_ms,
        concurrent = limits.max_concurrent_queries,
        rows = limits.max_rows,
        format = text(&log.format),
        level = text(&log.level),
    )
}

/// The line of `register.days`: what the preset says. A rule that there is none of is refused when the file is read.
fn register_days(rule: &str) -> String {
    let preset = register_presets().ok().and_then(|mut presets| presets.remove(rule));
    preset.map_or("# days = 30".into(), |preset| format!("days = {}", preset.days))
}

/// The table `budget`, with these amounts for a lifetime and for a query.
fn budget_table(amounts: Option<(u64, u64)>) -> String {
    let mut budget = BudgetFile::default();
    if let Some((lifetime, per_query)) = amounts {
        (budget.lifetime_micro_rho, budget.max_micro_rho_per_query) = (lifetime, per_query);
    }
    format!(
        r"# プライバシー予算、rho の百万分の一 / privacy budget in millionths of rho
[budget]
# 全研究の生涯上限 / all studies together, ever
lifetime_micro_rho = {lifetime}
# 1クエリの上限 / one query
max_micro_rho_per_query = {per_query}
# 期間ごとの上限 (全研究の合計、任意) / any so many days, all studies together (optional)
# window_days = 30
# window_micro_rho = {window}
# 公開されていない値で分けるときの delta、10^-18 単位、0 は許さない
# delta for group keys that are not public, in units of 10^-18; 0 allows none
lifetime_atto_delta = {lifetime_delta}
max_atto_delta_per_query = {delta_per_query}
",
        lifetime = budget.lifetime_micro_rho,
        per_query = budget.max_micro_rho_per_query,
        window = budget.lifetime_micro_rho.div_ceil(10).max(budget.max_micro_rho_per_query),
        lifetime_delta = budget.lifetime_atto_delta,
        delta_per_query = budget.max_atto_delta_per_query,
    )
}

/// The tables of `watch`.
fn watch_table() -> String {
    let WatchFile { address: _, unexpected_peer, refusals, no_answer, budget } = WatchFile::default();
    format!(
        r#"# 監視: 指標と稼働状態 (任意、このマシンからのみ) / metrics and health (optional, this machine only)
[watch]
# address = "127.0.0.1:9816"

# 警報の規則。suspend = true なら研究を停止する / when an alert is raised; suspend = true also suspends the study
# 予期しない相手 / somebody else than the coordinator
[watch.unexpected_peer]
count = {}
window_s = {}
# 拒否の続発 / refused queries of one study
[watch.refusals]
count = {}
window_s = {}
suspend = {}
# 回答なしの続発 / charged queries without an answer
[watch.no_answer]
count = {}
window_s = {}
suspend = {}
# 予算の急な消費 / budgets that burn fast
[watch.budget]
study_percent = {}
lifetime_percent = {}
window_s = {}
suspend = {}
"#,
        unexpected_peer.count,
        unexpected_peer.window_s,
        refusals.count,
        refusals.window_s,
        refusals.suspend,
        no_answer.count,
        no_answer.window_s,
        no_answer.suspend,
        budget.study_percent,
        budget.lifetime_percent,
        budget.window_s,
        budget.suspend,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The public key of RFC 8032, section 7.1, test `n`; of `TEST 1024`, the last.
    pub(crate) fn key(n: usize) -> PublicKey {
        let text = [
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
            "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
            "J4EX/BRMcjQPZ9DyMW6Dhs7/vyskKMnFH+98WX8dQm4=",
        ];
        text[n].parse().unwrap()
    }

    pub(crate) fn values() -> TemplateValues {
        TemplateValues {
            name: "tokyo".into(),
            state_dir: "state".into(),
            transport_key: "keys/transport.pem".into(),
            signing_key: "keys/signing \"1\".pem".into(),
            coordinator: Coordinator {
                address: "/dns/coordinator.example/tcp/7400".into(),
                peer_id: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".into(),
            },
            governance_key: key(0),
            committee_quorum: 2,
            committee: [1, 2]
                .map(|n| CommitteeMember { name: format!("委員{n}"), role: "chair".into(), key: key(n) })
                .into(),
            required_roles: vec!["chair".into()],
            distinct_roles: false,
            regulators: vec![Regulator { name: "ministry".into(), key: key(3) }],
            register_rule: "jp-ngmia".into(),
            datasets: vec!["data/dataset.toml".into()],
            budget: None,
        }
    }
}
