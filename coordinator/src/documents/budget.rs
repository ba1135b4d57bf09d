//! What a study has left at each hospital, as far as the coordinator can tell.
//!
//! The earmark is that of the hospital's signed acceptance, what was spent the sum over its signed receipts, each run
//! once; an exact result cost nothing, and ended the guarantee. A run that was charged and gave no answer has no receipt here: the hospital may have less. What is exact is a dry
//! run (`sekisho query --dry-run`), and the hospital's own `sekisho-node budget`.

use std::collections::{BTreeMap, BTreeSet};

use sekisho_protocol::{
    dsse::Envelope,
    receipt::{Acceptance, Receipt},
    refusal::{Code, Refusal},
    units::MicroRho,
};

use super::{Current, Documents, Held, Permit, unavailable};
use crate::report::{BudgetReport, HolderBudget};

impl Documents {
    /// What is left of the study that `name` names: its own id, or the id or digest of one of its permits.
    ///
    /// # Errors
    /// `permit_unknown` when no permit of such a study is known here.
    pub async fn budget(&self, name: &str) -> Result<BudgetReport, Refusal> {
        let current = self.current();
        let study_id = study(&current, name)?;
        let mut permits: Vec<_> = current.permits.values().filter(|p| p.study_id == study_id).collect();
        permits.sort_by_key(|p| (p.id.clone(), p.version));
        let mut holders: BTreeMap<String, HolderBudget> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        let exact_since = self.store.exact_since().await.map_err(unavailable)?;
        for permit in &permits {
            for name in permit.holders() {
                let nothing = MicroRho::ZERO;
                let unanswered = || HolderBudget {
                    answer: "none yet".into(),
                    earmark: nothing,
                    spent: nothing,
                    left: nothing,
                    exact_since: exact_since.get(&name).copied(),
                    name: name.clone(),
                };
                holders.entry(name.clone()).or_insert_with(unanswered);
            }
            for (name, envelope) in self.store.acceptances(permit.digest()).await.map_err(unavailable)? {
                let Some(holder) = holders.get_mut(&name) else { continue };
                // Its signature was verified when it came.
                let (acceptance, _) = Envelope::from_json::<Acceptance>(&envelope)?.peek::<Acceptance>()?;
                holder.answer = acceptance.refused.map_or_else(|| "accepted".into(), |code| code.to_string());
                holder.earmark = holder.earmark.max(acceptance.earmark);
            }
            for (name, envelope) in self.store.receipts(permit.digest()).await.map_err(unavailable)? {
                let (receipt, _) = Envelope::from_json::<Receipt>(&envelope)?.peek::<Receipt>()?;
                // A stored run is served again with the same receipt.
                if counted.insert((name.clone(), receipt.permit, receipt.query_key, receipt.run))
                    && let Some(holder) = holders.get_mut(&name)
                {
                    holder.spent = holder.spent.saturating_add(receipt.micro_rho);
                }
            }
        }
        let left = |holder: HolderBudget| HolderBudget { left: holder.earmark.saturating_sub(holder.spent), ..holder };
        Ok(BudgetReport {
            study_id,
            permits: permits.iter().map(|p| format!("{} version {}", p.id, p.version)).collect(),
            holders: holders.into_values().map(left).collect(),
        })
    }
}

fn study(current: &Current, name: &str) -> Result<String, Refusal> {
    let named = |permit: &&std::sync::Arc<Held<Permit>>| {
        permit.study_id == name || permit.id == name || permit.digest().to_string() == name
    };
    let found = current.permits.values().find(named).map(|permit| permit.study_id.clone());
    found.ok_or_else(|| Refusal::new(Code::PermitUnknown, "no permit with a quorum is known of such a study"))
}
