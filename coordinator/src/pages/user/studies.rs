//! The studies of a data user: the permits that name the person's key, whether they hold, and what is left at each
//! hospital.
//!
//! Promises: nothing of a permit is shown to whom it does not name, nor to the owner of a key that is void.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    permit::{OutputReview, Permit},
    refusal::{Code, Refusal},
};

use crate::{
    documents::{Current, Documents, Held},
    report::{BudgetReport, HolderBudget},
    round::authorise::in_force,
};

/// A permit of the person.
pub struct Own {
    /// The permit.
    pub permit: Arc<Held<Permit>>,
    /// Why nothing can be asked under it now; none when something can.
    pub void: Option<Refusal>,
    /// It is the newest version.
    pub newest: bool,
}

/// A study with the permits of the person.
pub struct Study {
    /// Its id.
    pub id: String,
    /// The permits, those in force first.
    pub permits: Vec<Own>,
    /// What is left at each hospital.
    pub budget: BudgetReport,
}

/// The studies of the person with this key, by id.
///
/// # Errors
/// When the database cannot be read.
pub async fn studies(documents: &Documents, key: Digest, now: DateTime<Utc>) -> Result<Vec<Study>, Refusal> {
    let current = documents.current();
    let mut own: Vec<Own> = own(&current, key, now);
    own.sort_by_key(|own| (own.permit.study_id.clone(), own.void.is_some(), std::cmp::Reverse(own.permit.version)));
    let mut studies: Vec<Study> = Vec::new();
    for permit in own {
        match studies.last_mut().filter(|study| study.id == permit.permit.study_id) {
            Some(study) => study.permits.push(permit),
            None => {
                let id = permit.permit.study_id.clone();
                let budget = documents.budget(&permit.permit.digest().to_string()).await?;
                studies.push(Study { id, permits: vec![permit], budget });
            }
        }
    }
    Ok(studies)
}

/// The permits that name the person with this key.
pub fn own(current: &Current, key: Digest, now: DateTime<Utc>) -> Vec<Own> {
    let newest =
        |permit: &Permit| !current.permits_of_person(key).any(|p| p.id == permit.id && p.version > permit.version);
    let own = |permit: &Arc<Held<Permit>>| Own {
        newest: newest(permit.verified().document()),
        void: in_force(permit, current, now).err(),
        permit: permit.clone(),
    };
    current.permits_of_person(key).map(own).collect()
}

impl Own {
    /// The code of why nothing can be asked now.
    pub fn code(&self) -> Option<Code> {
        self.void.as_ref().map(|refusal| refusal.code)
    }

    /// Whether two members review results before the person has them.
    pub fn is_reviewed(&self) -> bool {
        self.permit.output_review == OutputReview::TwoPerson
    }

    /// Why results that were released under the permit are not shown any more; none when they are. A permit that ended
    /// or was replaced takes nothing back; one that was revoked or suspended does.
    pub fn takes_back(&self) -> Option<&Refusal> {
        let ended = [Code::PermitExpired, Code::PermitSuperseded, Code::PermitNotYetValid];
        self.void.as_ref().filter(|refusal| !ended.contains(&refusal.code))
    }
}

/// How much of what a hospital set aside is spent, in whole percent, rounded up.
pub fn percent_spent(holder: &HolderBudget) -> u64 {
    let (spent, all) = (holder.spent.get(), holder.earmark.get());
    if all == 0 { 0 } else { spent.saturating_mul(100).div_ceil(all).min(100) }
}
