use sekisho_protocol::permit::OptOutRule;

use super::*;
use crate::{
    file::WatchFile,
    template::{
        TemplateValues, template,
        tests::{key as test_key, values},
    },
};

/// The window of the template, as it is commented out.
const WINDOW: &str = "# window_days = 30\n# window_micro_rho = 500000";

/// The endpoint of the template, as it is commented out.
const LOCAL: &str = "# [local]\n# address = \"127.0.0.1:8816\"\n# token_file = \"local-tokens\"";

/// The console of the template, as it is commented out.
const CONSOLE: &str = "# [console]\n# address = \"127.0.0.1:8819\"\n# token_file = \"console-tokens\"";

/// The configuration that a file with `text` in the folder `/etc/sekisho` means, or what is said about it.
fn read(text: &str) -> Result<NodeConfig, String> {
    let file = File::from_str(text, FileFormat::Toml);
    let read = Config::builder().add_source(file).build().map_err(|e| e.to_string())?;
    let read: NodeConfigFile = read.try_deserialize().map_err(|e| e.to_string())?;
    NodeConfig::try_from(read).map_err(|e| e.to_string())
}

#[test]
fn the_template_is_read_back_with_every_default() {
    let config = read(&template(&values())).unwrap();
    assert_eq!(config.name, "tokyo");
    assert_eq!(config.coordinator, values().coordinator);
    assert_eq!(config.trust.governance_key, test_key(0));
    assert_eq!(config.trust.committee.members, values().committee);
    assert_eq!((config.trust.committee.needed, config.trust.committee.seq), (2, 0));
    assert_eq!(config.trust.committee.required_roles, ["chair"]);
    assert_eq!(config.signing_key, PathBuf::from("keys/signing \"1\".pem"));
    assert_eq!(config.register, OptOut { rule: OptOutRule::JpNgmia, days: 30 });
    assert_eq!(config.datasets, [PathBuf::from("data/dataset.toml")]);
    assert_eq!(config.budget, BudgetFile::default().try_into().unwrap());
    assert_eq!(config.limits, LimitsFile::default().try_into().unwrap());
    assert_eq!(config.limits.memory_bytes, 2 << 30);
    assert_eq!(config.log, Log { format: LogFormat::Text, level: LogLevel::Info });
    let other = TemplateValues { datasets: Vec::new(), budget: Some((7, 5)), ..values() };
    let config = read(&template(&other)).unwrap();
    assert_eq!((config.budget.lifetime.get(), config.budget.per_query.get(), config.datasets.len()), (7, 5, 0));
}

#[test]
fn a_window_and_deltas_are_taken_as_written() {
    assert_eq!(read(&template(&values())).unwrap().budget.window, None);
    for (days, rho) in [(1, 100_000), (3660, 5_000_000)] {
        let text = template(&values())
            .replace(WINDOW, &format!("window_days = {days}\nwindow_micro_rho = {rho}"))
            .replace("lifetime_atto_delta = 0", "lifetime_atto_delta = 1000000000000000")
            .replace("delta_per_query = 0", "delta_per_query = 1000000000000000");
        let budget = read(&text).unwrap().budget;
        assert_eq!(budget.window, Some(Window { days, micro_rho: rho.try_into().unwrap() }));
        assert_eq!((budget.lifetime_delta, budget.delta_per_query), (AttoDelta::MAX, AttoDelta::MAX));
    }
}

#[test]
fn the_days_of_a_preset_may_be_lengthened_and_its_rule_kept() {
    for (rule, days, expect) in [
        ("jp-ngmia", "days = 30", Some((OptOutRule::JpNgmia, 30))),
        ("jp-ngmia", "days = 3650", Some((OptOutRule::JpNgmia, 3650))),
        ("jp-ngmia", "", Some((OptOutRule::JpNgmia, 30))),
        ("jp-ngmia", "days = 29", None),
        ("eu-ehds", "", Some((OptOutRule::EuEhds, 0))),
        ("eu-ehds", "days = 30", Some((OptOutRule::EuEhds, 30))),
    ] {
        let text = template(&values()).replace("days = 30", days).replace("\"jp-ngmia\"", &format!("{rule:?}"));
        let read = read(&text).ok().map(|config| (config.register.rule, config.register.days));
        assert_eq!(read, expect, "{rule} {days}");
    }
    let ehds = template(&TemplateValues { register_rule: "eu-ehds".into(), ..values() });
    assert!(ehds.contains("days = 0") && read(&ehds).is_ok());
}

#[test]
fn the_endpoint_is_off_unless_it_is_written_down_on_loopback() {
    let config = read(&template(&values())).unwrap();
    assert_eq!((config.local, config.console), (None, None));
    for address in ["127.0.0.1:8816", "127.8.8.8:1", "[::1]:8816"] {
        let text = template(&values())
            .replace(LOCAL, &format!("[local]\naddress = {address:?}\ntoken_file = \"keys/tokens\""));
        let local = Local { address: address.parse().unwrap(), token_file: "keys/tokens".into() };
        assert_eq!(read(&text).unwrap().local, Some(local));
        let text = template(&values())
            .replace(CONSOLE, &format!("[console]\naddress = {address:?}\ntoken_file = \"keys/tokens\""));
        let console = Console { address: address.parse().unwrap(), token_file: "keys/tokens".into() };
        assert_eq!(read(&text).unwrap().console, Some(console));
    }
}

#[test]
fn metrics_are_off_unless_an_address_of_loopback_is_written_and_rules_are_as_written() {
    let watch = read(&template(&values())).unwrap().watch;
    assert_eq!(watch, WatchFile::default().try_into().unwrap());
    assert_eq!((watch.address, watch.refusals.count, watch.budget.suspend), (None, 30, false));
    let text = template(&values())
        .replace("# address = \"127.0.0.1:9816\"", "address = \"[::1]:9816\"")
        .replace("count = 30\nwindow_s = 600\nsuspend = false", "count = 1000\nwindow_s = 2678400\nsuspend = true");
    let watch = read(&text).unwrap().watch;
    assert_eq!(watch.address, Some("[::1]:9816".parse().unwrap()));
    let refusals = CountRule { count: 1000, window: Duration::from_secs(31 * 86_400), suspend: true };
    assert_eq!((watch.refusals, watch.no_answer.suspend), (refusals, false));
}

#[test]
fn optional_tables_may_be_left_out() {
    let whole = template(&values());
    let (head, tail) = whole.split_once("[budget]").unwrap();
    let (_, register) = tail.split_once("[register]").unwrap();
    let (register, _) = register.split_once("days").unwrap();
    let config = read(&format!("{head}[policy]\nfile = \"p\"\n[register]{register}")).unwrap();
    assert_eq!(config.budget, BudgetFile::default().try_into().unwrap());
    assert_eq!(config.register.days, 30);
    assert!(config.datasets.is_empty());
}

#[test]
fn a_wrong_value_is_refused_with_its_key() {
    let (one, two) = (test_key(1).to_string(), test_key(2).to_string());
    for (from, to, named) in [
        ("name = \"tokyo\"", "name = \"Tokyo\"", "`name`"),
        ("state_dir = \"state\"", "state_dir = \"\"", "`state_dir`"),
        ("signing = 'keys/signing \"1\".pem'", "signing = \"keys/transport.pem\"", "`keys.signing`"),
        ("/dns/coordinator.example/tcp/7400", "https://coordinator.example", "`coordinator.address`"),
        ("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "12D3", "`coordinator.peer_id`"),
        ("committee_quorum = 2", "committee_quorum = 0", "`trust.committee_quorum`"),
        ("committee_quorum = 2", "committee_quorum = 3", "`trust.committee_quorum`"),
        (two.as_str(), one.as_str(), "`trust.committee[1].key`"),
        (one.as_str(), "nonsense", "`trust.committee[0].key`"),
        (two.as_str(), &test_key(0).to_string(), "`trust.committee[1].key`"),
        ("role = \"chair\"", "role = \" \"", "`trust.committee[0].role`"),
        ("lifetime_micro_rho = 5000000", "lifetime_micro_rho = 0", "`budget.lifetime_micro_rho`"),
        ("max_micro_rho_per_query = 100000", "max_micro_rho_per_query = 5000001", "`budget.max_micro_rho_per_query`"),
        ("# window_days = 30", "window_days = 30", "`budget.window_micro_rho`"),
        ("# window_micro_rho = 500000", "window_micro_rho = 500000", "`budget.window_days`"),
        (WINDOW, "window_days = 0\nwindow_micro_rho = 100000", "`budget.window_days`"),
        (WINDOW, "window_days = 3661\nwindow_micro_rho = 100000", "`budget.window_days`"),
        (WINDOW, "window_days = 30\nwindow_micro_rho = 99999", "`budget.window_micro_rho`"),
        (WINDOW, "window_days = 30\nwindow_micro_rho = 5000001", "`budget.window_micro_rho`"),
        ("lifetime_atto_delta = 0", "lifetime_atto_delta = 1000000000000001", "`budget.lifetime_atto_delta`"),
        ("delta_per_query = 0", "delta_per_query = 1", "`budget.max_atto_delta_per_query`"),
        ("file = \"policy.cedar\"", "file = \"\"", "`policy.file`"),
        ("[policy]\nfile = \"policy.cedar\"\n", "", "\"policy\""),
        ("rule = \"jp-ngmia\"", "rule = \"none\"", "`register.rule`"),
        ("days = 30", "days = 29", "`register.days`"),
        ("days = 30", "days = 3651", "`register.days`"),
        (LOCAL, "[local]\naddress = \"0.0.0.0:8816\"\ntoken_file = \"t\"", "`local.address`"),
        (LOCAL, "[local]\naddress = \"192.0.2.7:8816\"\ntoken_file = \"t\"", "`local.address`"),
        (LOCAL, "[local]\naddress = \"localhost:8816\"\ntoken_file = \"t\"", "`local.address`"),
        (LOCAL, "[local]\naddress = \"127.0.0.1:0\"\ntoken_file = \"t\"", "`local.address`"),
        (LOCAL, "[local]\naddress = \"127.0.0.1:8816\"\ntoken_file = \"\"", "`local.token_file`"),
        (LOCAL, "[local]\naddress = \"127.0.0.1:8816\"", "token_file"),
        (CONSOLE, "[console]\naddress = \"0.0.0.0:8819\"\ntoken_file = \"t\"", "`console.address`"),
        (CONSOLE, "[console]\naddress = \"127.0.0.1:8819\"\ntoken_file = \"\"", "`console.token_file`"),
        ("mapping = \"data/dataset.toml\"", "mapping = \"\"", "`datasets[0].mapping`"),
        ("memory_mb = 512", "memory_mb = 63", "`snapshots.memory_mb`"),
        ("keep = 2", "keep = 1", "`snapshots.keep`"),
        ("query_timeout_s = 60", "query_timeout_s = 0", "`limits.query_timeout_s`"),
        ("memory_mb = 2048", "memory_mb = 1", "`limits.memory_mb`"),
        ("answer_step_ms = 2000", "answer_step_ms = 0", "`limits.answer_step_ms`"),
        ("max_concurrent_queries = 2", "max_concurrent_queries = 0", "`limits.max_concurrent_queries`"),
        ("max_concurrent_per_person = 4", "max_concurrent_per_person = 65", "`limits.max_concurrent_per_person`"),
        ("max_per_person_per_minute = 60", "max_per_person_per_minute = 0", "`limits.max_per_person_per_minute`"),
        ("max_per_person_per_minute = 60", "max_per_person_per_minute = 6001", "`limits.max_per_person_per_minute`"),
        ("max_rows = 1000000000", "max_rows = 0", "`limits.max_rows`"),
        ("# address = \"127.0.0.1:9816\"", "address = \"0.0.0.0:9816\"", "`watch.address`"),
        ("# address = \"127.0.0.1:9816\"", "address = \"127.0.0.1:0\"", "`watch.address`"),
        ("count = 1\n", "count = 0\n", "`watch.unexpected_peer.count`"),
        ("count = 30", "count = 1001", "`watch.refusals.count`"),
        ("window_s = 600", "window_s = 2678401", "`watch.refusals.window_s`"),
        ("count = 2\nwindow_s = 86400", "count = 2\nwindow_s = 0", "`watch.no_answer.window_s`"),
        ("study_percent = 50", "study_percent = 0", "`watch.budget.study_percent`"),
        ("lifetime_percent = 20", "lifetime_percent = 101", "`watch.budget.lifetime_percent`"),
        ("window_s = 3600\n", "window_s = 3600\nsuspend = true\n", "`suspend`"),
        ("format = \"text\"", "format = \"xml\"", "`log.format`"),
        ("level = \"info\"", "level = \"trace\"", "`log.level`"),
        ("name = \"tokyo\"", "name = \"tokyo\"\nnoise = false", "`noise`"),
        ("[limits]", "[limits]\nmemory_gb = 2", "`memory_gb`"),
        ("memory_mb = 2048", "memory_mb = -1", "limits.memory_mb"),
        ("name = \"tokyo\"", "", "\"name\""),
    ] {
        let text = template(&values()).replace(from, to);
        assert_ne!(text, template(&values()), "{from} is not in the template");
        let said = read(&text).unwrap_err();
        assert!(said.contains(named), "{from} as {to}: {said}");
    }
}

#[test]
fn paths_start_from_the_folder_of_the_file_and_a_missing_file_is_named() {
    let folder = std::env::temp_dir().join(format!("sekisho-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("node.toml");
    std::fs::write(&path, template(&TemplateValues { state_dir: "/var/state".into(), ..values() })).unwrap();
    let config = load(&path).unwrap();
    std::fs::write(&path, template(&values()) + "surprise = 1\n").unwrap();
    let unknown = load(&path).unwrap_err().to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/var/state"));
    assert_eq!(config.transport_key, folder.join("keys/transport.pem"));
    assert_eq!(config.policy, folder.join("policy.cedar"));
    assert_eq!(config.datasets, [folder.join("data/dataset.toml")]);
    assert!(unknown.contains("`surprise`") && unknown.contains("node.toml"), "{unknown}");
    assert!(load(&path).unwrap_err().to_string().contains("node.toml"));
}
