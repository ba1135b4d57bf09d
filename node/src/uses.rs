//! Which studies have used the data set while a patient counted: for the hospital's own screen, and for the patient who asks.
//!
//! A run is told if the patient was in the set of those whose rows might be read: by the register as it was when the run was
//! charged, under the permit's rule and the hospital's. It says that the data set was used then, not that the patient has rows in
//! it, nor that a query selected them: nobody looks that up. Only runs with a release are told, and only the hospital's rule of
//! today is known.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::NaiveDate;
use sekisho_protocol::{
    digest::Digest,
    permit::{OptOut, Permit},
};
use serde::Serialize;

use crate::{
    answer::Answering,
    documents::Documents,
    ledger::{Ledger, LedgerError},
    register::{Register, RegisterError},
};

/// One study's use of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StudyUse {
    /// The study.
    pub study_id: String,
    /// What for, from the newest permit that was used.
    pub purposes: Vec<String>,
    /// Who asked.
    pub data_user: String,
    /// Who answers for the study.
    pub principal_investigator: String,
    /// The tables that the permit opens.
    pub tables: Vec<String>,
    /// How many runs have a release.
    pub runs: u64,
    /// The day of the first of them.
    pub first: NaiveDate,
    /// The day of the last one.
    pub last: NaiveDate,
}

/// Why uses cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UsesError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The register.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A permit that was charged under is not as it was stored.
    #[error("a permit of the study {study} is not in the node's database, or cannot be read: restore it from a backup")]
    Permit {
        /// The study.
        study: String,
    },
}

/// What uses are looked up in.
#[derive(Clone)]
pub struct Uses {
    /// Who counted when.
    pub register: Register,
    /// What ran.
    pub ledger: Ledger,
    /// Under which permits.
    pub documents: Documents,
    /// The hospital's own rule.
    pub own_rule: OptOut,
}

impl From<&Answering> for Uses {
    fn from(node: &Answering) -> Self {
        Self {
            register: node.register.clone(),
            ledger: node.ledger.clone(),
            documents: node.documents.clone(),
            own_rule: node.own_rule,
        }
    }
}

impl Uses {
    /// The studies of which a run used the data set while `patient` counted, by id.
    ///
    /// # Errors
    /// When the database fails, or a permit in it cannot be read.
    pub async fn of(&self, patient: &str) -> Result<Vec<StudyUse>, UsesError> {
        let status = self.register.status(patient).await?.unwrap_or_default();
        let mut permits: BTreeMap<Digest, Permit> = BTreeMap::new();
        let mut uses: Vec<StudyUse> = Vec::new();
        for released in self.ledger.released_runs().await? {
            let permit = match permits.entry(released.permit) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.permit(released.permit, &released.study_id).await?),
            };
            if !status.eligible_at(&[permit.optout, self.own_rule], released.as_of, released.register_seq)? {
                continue;
            }
            // They come by study and day.
            let known = uses.last_mut().filter(|last| last.study_id == released.study_id);
            let (runs, first) = known.as_ref().map_or((0, released.as_of), |known| (known.runs, known.first));
            let told = StudyUse {
                purposes: permit.purposes.iter().map(|purpose| name(*purpose)).collect(),
                data_user: permit.data_user.clone(),
                principal_investigator: permit.principal_investigator.clone(),
                tables: permit.data.iter().map(|table| table.table.clone()).collect(),
                study_id: released.study_id,
                runs: runs + released.runs,
                first,
                last: released.as_of,
            };
            match known {
                Some(known) => *known = told,
                None => uses.push(told),
            }
        }
        Ok(uses)
    }

    async fn permit(&self, digest: Digest, study: &str) -> Result<Permit, UsesError> {
        let unreadable = || UsesError::Permit { study: study.into() };
        let stored = self.documents.permit(digest).await.map_err(|_| unreadable())?.ok_or_else(unreadable)?;
        let envelope = stored.envelope().map_err(|_| unreadable())?;
        Ok(envelope.peek::<Permit>().map_err(|_| unreadable())?.0)
    }
}

/// The purpose as permits write it.
fn name(purpose: impl Serialize) -> String {
    serde_json::to_value(purpose).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
