//! The configuration as it is written: nothing is checked yet but names and types.

use serde::Deserialize;

/// A `node.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfigFile {
    pub(crate) name: String,
    pub(crate) state_dir: String,
    pub(crate) keys: KeysFile,
    pub(crate) coordinator: CoordinatorFile,
    pub(crate) trust: TrustFile,
    #[serde(default)]
    pub(crate) budget: BudgetFile,
    pub(crate) policy: PolicyFile,
    pub(crate) register: RegisterFile,
    pub(crate) exact: Option<ExactFile>,
    pub(crate) local: Option<LocalFile>,
    pub(crate) console: Option<ConsoleFile>,
    #[serde(default)]
    pub(crate) datasets: Vec<DatasetFile>,
    #[serde(default)]
    pub(crate) snapshots: SnapshotsFile,
    #[serde(default)]
    pub(crate) limits: LimitsFile,
    #[serde(default)]
    pub(crate) watch: WatchFile,
    #[serde(default)]
    pub(crate) log: LogFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysFile {
    pub(crate) transport: String,
    pub(crate) signing: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoordinatorFile {
    pub(crate) address: String,
    pub(crate) peer_id: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustFile {
    pub(crate) governance_key: String,
    pub(crate) committee_quorum: u64,
    #[serde(default)]
    pub(crate) required_roles: Vec<String>,
    #[serde(default)]
    pub(crate) distinct_roles: bool,
    pub(crate) committee: Vec<CommitteeMemberFile>,
    #[serde(default)]
    pub(crate) regulators: Vec<RegulatorFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegulatorFile {
    pub(crate) name: String,
    pub(crate) key: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitteeMemberFile {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) key: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BudgetFile {
    pub(crate) lifetime_micro_rho: u64,
    pub(crate) max_micro_rho_per_query: u64,
    pub(crate) window_days: Option<u64>,
    pub(crate) window_micro_rho: Option<u64>,
    pub(crate) lifetime_atto_delta: u64,
    pub(crate) max_atto_delta_per_query: u64,
}

impl Default for BudgetFile {
    fn default() -> Self {
        Self {
            lifetime_micro_rho: 5_000_000,
            max_micro_rho_per_query: 100_000,
            window_days: None,
            window_micro_rho: None,
            lifetime_atto_delta: 0,
            max_atto_delta_per_query: 0,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    pub(crate) file: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterFile {
    pub(crate) rule: String,
    pub(crate) days: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExactFile {
    pub(crate) min_patients: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalFile {
    pub(crate) address: String,
    pub(crate) token_file: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleFile {
    pub(crate) address: String,
    pub(crate) token_file: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetFile {
    pub(crate) mapping: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SnapshotsFile {
    pub(crate) memory_mb: u64,
    pub(crate) keep: u64,
}

impl Default for SnapshotsFile {
    fn default() -> Self {
        Self { memory_mb: 512, keep: 2 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    pub(crate) query_timeout_s: u64,
    pub(crate) memory_mb: u64,
    pub(crate) answer_step_ms: u64,
    pub(crate) max_concurrent_queries: u64,
    pub(crate) max_rows: u64,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            query_timeout_s: 60,
            memory_mb: 2048,
            answer_step_ms: 2000,
            max_concurrent_queries: 2,
            max_rows: 1_000_000_000,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WatchFile {
    pub(crate) address: Option<String>,
    pub(crate) unexpected_peer: PeerRuleFile,
    pub(crate) refusals: RefusalsRuleFile,
    pub(crate) no_answer: NoAnswerRuleFile,
    pub(crate) budget: BudgetRuleFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeerRuleFile {
    pub(crate) count: u64,
    pub(crate) window_s: u64,
}

impl Default for PeerRuleFile {
    fn default() -> Self {
        Self { count: 1, window_s: 3600 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RefusalsRuleFile {
    pub(crate) count: u64,
    pub(crate) window_s: u64,
    pub(crate) suspend: bool,
}

impl Default for RefusalsRuleFile {
    fn default() -> Self {
        Self { count: 30, window_s: 600, suspend: false }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoAnswerRuleFile {
    pub(crate) count: u64,
    pub(crate) window_s: u64,
    pub(crate) suspend: bool,
}

impl Default for NoAnswerRuleFile {
    fn default() -> Self {
        Self { count: 2, window_s: 86_400, suspend: false }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BudgetRuleFile {
    pub(crate) study_percent: u64,
    pub(crate) lifetime_percent: u64,
    pub(crate) window_s: u64,
    pub(crate) suspend: bool,
}

impl Default for BudgetRuleFile {
    fn default() -> Self {
        Self { study_percent: 50, lifetime_percent: 20, window_s: 86_400, suspend: false }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogFile {
    pub(crate) format: String,
    pub(crate) level: String,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { format: "text".into(), level: "info".into() }
    }
}
