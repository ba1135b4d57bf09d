//! Data sets as a policy sees them, read beside the running node: mappings, and whether their snapshots are synthetic.

use miette::{IntoDiagnostic, Result};
use sekisho_node_config::NodeConfig;

use super::schema_keys;
use crate::{
    data::{mapping::Mapping, snapshot},
    permits::Holder,
    policy::{DataFacts, Policy},
};

/// One data set.
pub(super) struct Held {
    mapping: Mapping,
    synthetic: bool,
}

impl Held {
    fn facts(&self) -> DataFacts<'_> {
        let schema = self.mapping.schema().document();
        DataFacts { id: self.mapping.id(), synthetic: self.synthetic, schema }
    }
}

/// The data sets of `config`. Until a first snapshot is there a data set is what its mapping declares; what cannot be opened
/// is not synthetic.
pub(super) async fn held(config: &NodeConfig) -> Result<Vec<Held>> {
    let (mut sets, governance) = (Vec::new(), schema_keys(config).await?);
    for path in &config.datasets {
        let mapping = Mapping::load(path, &governance).into_diagnostic()?;
        let synthetic = match snapshot::open(&mapping, &config.state_dir.join("snapshots")) {
            Ok(Some(snapshot)) => snapshot.synthetic(),
            Ok(None) => mapping.synthetic(),
            Err(_) => false,
        };
        sets.push(Held { mapping, synthetic });
    }
    Ok(sets)
}

/// All of `sets` as the policy sees them.
pub(super) fn facts(sets: &[Held]) -> Vec<DataFacts<'_>> {
    sets.iter().map(Held::facts).collect()
}

/// What the hospital of `config` judges a permit by.
pub(super) fn holder<'a>(config: &'a NodeConfig, policy: &'a Policy, sets: &'a [Held]) -> Holder<'a> {
    let data = sets.iter().map(|set| (set.mapping.schema().digest(), set.facts())).collect();
    let exact_min_patients = config.exact.map(|exact| exact.min_patients);
    Holder { name: &config.name, exact_min_patients, policy, data }
}
