//! The reference of every key, from one table.

use std::fmt::Write;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with its tables.
    pub name: &'static str,
    /// Its default as it is written in TOML; none when it must be given.
    pub default: Option<&'static str>,
    /// What it means, in English.
    pub meaning: &'static str,
}

const fn required(name: &'static str, meaning: &'static str) -> Key {
    Key { name, default: None, meaning }
}

const fn optional(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default: Some(default), meaning }
}

/// Every key, in the order of the file.
pub const KEYS: &[Key] = &[
    required("name", "The hospital's name on the roster: 1-64 lower-case letters, digits and hyphens."),
    required("state_dir", "The folder of `node.db` and of the snapshots."),
    required("keys.transport", "The file of the transport key (Ed25519, PKCS#8 PEM, mode 0600)."),
    required("keys.signing", "The file of the signing key; another key than the transport key."),
    required("coordinator.address", "The coordinator's multiaddr, with `/tcp/<port>` or `/udp/<port>/quic-v1`."),
    required("coordinator.peer_id", "The coordinator's libp2p peer id; no other peer is spoken to."),
    required("trust.governance_key", "The key that signs roster and status, base64."),
    required(
        "trust.committee_quorum",
        "How many members must sign a permit: 1 to all. 2 or more is recommended, so that no one person grants access.",
    ),
    optional(
        "trust.required_roles[]",
        "none",
        "Roles that must be among a permit's signers, such as `patient-representative`; a list of names.",
    ),
    optional("trust.distinct_roles", "false", "Two signers of one role count once."),
    required("trust.committee[].name", "A committee member's name."),
    required("trust.committee[].role", "The member's seat."),
    required("trust.committee[].key", "The member's key, base64; all keys differ."),
    optional(
        "trust.regulators[].name",
        "none",
        "A regulator whose orders to suspend are obeyed, by the name in its orders; at most 16.",
    ),
    optional("trust.regulators[].key", "none", "The regulator's key, base64."),
    optional(
        "budget.lifetime_micro_rho",
        "5000000",
        "What all studies together may ever spend on these patients, in millionths of rho. The ceiling in the software holds all the same.",
    ),
    optional(
        "budget.max_micro_rho_per_query",
        "100000",
        "What one query may spend, in millionths of rho; the permit's limit holds beside it.",
    ),
    optional(
        "budget.window_days",
        "none",
        "The days of a time window, 1 to 3660, each of 24 hours; with `window_micro_rho`, or neither.",
    ),
    optional(
        "budget.window_micro_rho",
        "none",
        "What all studies together may spend in any `window_days` days, in millionths of rho: at least `max_micro_rho_per_query`, at most `lifetime_micro_rho`. It only tightens; beyond it queries are refused with `budget_window` until older charges leave the window.",
    ),
    optional(
        "budget.lifetime_atto_delta",
        "0",
        "What all studies together may ever spend in delta, in units of 10^-18. Only group keys that are not public spend delta; with 0 no query may have them. The ceiling in the software (10^14) holds all the same.",
    ),
    optional(
        "budget.max_atto_delta_per_query",
        "0",
        "What one query may spend in delta, in units of 10^-18, at most `lifetime_atto_delta`; the permit's limit and the ceiling in the software (10^12) hold beside it.",
    ),
    required(
        "policy.file",
        "The hospital's own policy in Cedar, see [policy.md](policy.md): which permits it accepts and which queries it answers. Without it, or with a mistake in it, the node does not start.",
    ),
    required(
        "register.rule",
        "The hospital's own opt-out rule, `jp-ngmia` or `eu-ehds`; the permit's rule holds beside it.",
    ),
    optional(
        "register.days",
        "30",
        "Days between notice and first use under `jp-ngmia`: 30, or more up to 3650. Without it, what the rule's preset says (0 for `eu-ehds`, which asks for no notice).",
    ),
    optional(
        "exact.min_patients",
        "none",
        "Switches exact results on, see \"Exact releases\": the least number of patients of a cell, and between any two exact releases, 3 to 1000000; the permit's preset holds where it is higher. Without the table `exact` permits and queries for exact results are refused.",
    ),
    optional(
        "local.address",
        "none",
        "Where the hospital's own systems reach the node, on loopback only: `127.0.0.1:8816`. Without the table `local` there is no such endpoint.",
    ),
    optional(
        "local.token_file",
        "none",
        "The file of the tokens of these systems, hashed, mode 0600; `sekisho-node local token NAME` adds one.",
    ),
    optional(
        "console.address",
        "none",
        "Where an operator looks after the node in a browser, on loopback only: `127.0.0.1:8819`. Without the table `console` there are no such pages.",
    ),
    optional(
        "console.token_file",
        "none",
        "The file of the operators' tokens, hashed, mode 0600; `sekisho-node console token add NAME` adds one.",
    ),
    optional("datasets[].mapping", "none", "A data set's mapping file: which source is which table of a schema."),
    optional(
        "snapshots.memory_mb",
        "512",
        "How much memory sorting a snapshot may take, in MiB, 64 to 1048576; what does not fit goes to `state_dir` for the while.",
    ),
    optional(
        "snapshots.keep",
        "2",
        "How many snapshots of a data set `data prune` keeps beside those that a release or a charged run needs, 2 to 1000, the current one counted.",
    ),
    optional(
        "limits.query_timeout_s",
        "60",
        "How long one query may take from its arrival to its release, in seconds, 1 to 3600; beyond it there is no answer, and the charge stands.",
    ),
    optional("limits.memory_mb", "2048", "How much memory one query may take, in MiB, 64 to 1048576."),
    optional(
        "limits.answer_step_ms",
        "2000",
        "An answer leaves this long after its request if it is ready by then, otherwise `query_timeout_s` later, and at no other time, in milliseconds, 100 to 60000. One bit remains: whether the query took longer than this.",
    ),
    optional("limits.max_concurrent_queries", "2", "How many queries run at once, 1 to 64."),
    optional(
        "limits.max_rows",
        "1000000000",
        "How many rows a table may have, 1 to 10^12; with a snapshot that has more the node does not start.",
    ),
    optional(
        "watch.address",
        "none",
        "Where `/metrics`, `/healthz` and `/readyz` are served, on loopback only: `127.0.0.1:9816`. Without it they are not.",
    ),
    optional(
        "watch.unexpected_peer.count",
        "1",
        "From how many events on somebody else than the pinned coordinator is an alert, 1 to 1000: another party at its address, or a query by a key that counts no longer.",
    ),
    optional("watch.unexpected_peer.window_s", "3600", "Within how many seconds, 1 to 2678400 (31 days)."),
    optional("watch.refusals.count", "30", "How many refused queries and dry runs of a study are an alert, 1 to 1000."),
    optional("watch.refusals.window_s", "600", "Within how many seconds, 1 to 2678400."),
    optional("watch.refusals.suspend", "false", "Whether the study is suspended for it, until `resume`."),
    optional(
        "watch.no_answer.count",
        "2",
        "How many charged queries of a study without an answer are an alert, 1 to 1000. After three the study rests in any case.",
    ),
    optional("watch.no_answer.window_s", "86400", "Within how many seconds, 1 to 2678400."),
    optional("watch.no_answer.suspend", "false", "Whether the study is suspended for it, until `resume`."),
    optional(
        "watch.budget.study_percent",
        "50",
        "Which share of what is set aside for a study is an alert when it is spent within the window, in percent, 1 to 100.",
    ),
    optional(
        "watch.budget.lifetime_percent",
        "20",
        "The same of the lifetime cap, for all studies together; nothing is suspended for it.",
    ),
    optional("watch.budget.window_s", "86400", "Within how many seconds, 1 to 2678400."),
    optional("watch.budget.suspend", "false", "Whether the study is suspended for its share, until `resume`."),
    optional("log.format", "\"text\"", "`text` for people, `json` for machines."),
    optional("log.level", "\"info\"", "`error`, `warn`, `info` or `debug`."),
];

/// A Markdown table of every key, its default and its meaning.
pub fn reference() -> String {
    let mut table = String::from("| key | default | meaning |\n|---|---|---|\n");
    for key in KEYS {
        let default = key.default.map_or("(required)".to_string(), |default| format!("`{default}`"));
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {default} | {} |", key.name, key.meaning);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::tests::values;

    #[test]
    fn the_reference_names_exactly_the_keys_of_the_template_with_their_defaults() {
        // The optional tables and keys are there as a comment.
        let mut text = crate::template(&values());
        for key in ["window_", "[exact]", "min_patients", "[local]", "[console]", "address = \"127", "token_file"] {
            text = text.replace(&format!("# {key}"), key);
        }
        let written: toml::Table = text.parse().unwrap();
        let mut found = Vec::new();
        flatten("", &toml::Value::Table(written), &mut found);
        for (name, value) in &found {
            let key = KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} has no reference"));
            if let Some(default) = key.default.filter(|default| *default != "none") {
                assert_eq!(value.replace('_', ""), default, "{name}");
            }
        }
        for key in KEYS {
            assert!(found.iter().any(|(name, _)| name == key.name), "{} is not in the template", key.name);
            assert!(reference().contains(&format!("| `{}` |", key.name)));
        }
    }

    #[test]
    fn the_operators_page_has_the_reference() {
        assert!(include_str!("../../docs/node.md").contains(&reference()), "{}", reference());
    }

    fn flatten(prefix: &str, value: &toml::Value, found: &mut Vec<(String, String)>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    flatten(&format!("{prefix}{dot}{name}"), value, found);
                }
            }
            toml::Value::Array(values) => values.iter().for_each(|v| flatten(&format!("{prefix}[]"), v, found)),
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => found.push((prefix.into(), value.to_string())),
        }
    }
}
