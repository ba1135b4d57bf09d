//! A question that will be charged: what it is, what the run is bound to, and who pays.
//!
//! There are two ways to one. A person's query was admitted first. The hospital's own counts for its catalogue need nobody's
//! permit, since the hospital asks itself, and go the same way from here on: reservation, register, noise, release, receipt.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{
    digest::Digest,
    permit::{OptOut, Permit},
    query::Query,
};

use crate::{
    catalogue::OwnCount,
    data::snapshot::Snapshot,
    guard::{AdmittedQuery, Envelopes},
    holding::DataSet,
    ledger::{Cost, RunKey},
    policy::Allowed,
    slots::Slot,
};

/// What a run reads, by which plan, in whose place.
pub(crate) struct Reading {
    /// The plan that this node made of the SQL.
    pub(crate) plan: Arc<PrivatePlan>,
    /// The data set.
    pub(crate) data: Arc<DataSet>,
    /// Its current snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Held for as long as anything works on the question.
    pub(crate) _slot: Arc<Slot>,
}

/// Query and permit in the bytes that were signed, or of the hospital's own counts in those that were written down.
pub(crate) struct Said {
    pub(super) signed: bool,
    pub(crate) query: Vec<u8>,
    pub(crate) permit: Vec<u8>,
}

/// A question that will be charged.
pub(crate) struct Question {
    pub(crate) key: RunKey,
    pub(crate) study_id: String,
    pub(super) permit_total: Cost,
    pub(super) optout: OptOut,
    pub(crate) query: Digest,
    pub(crate) nonce: String,
    pub(crate) nonce_expires: DateTime<Utc>,
    pub(crate) said: Said,
    pub(crate) reading: Reading,
}

impl Question {
    /// A person's query that was admitted, and that the hospital's policy allows.
    pub(super) fn admitted(admitted: &AdmittedQuery, _allowed: &Allowed, reading: Reading) -> Self {
        let (permit, query) = (admitted.permit(), admitted.query());
        let Envelopes { query: asked, permit: granted } = admitted.envelopes();
        let said = Said { signed: true, query: asked.to_json(), permit: granted.to_json() };
        Self::of((permit, permit.digest()), (query, query.digest()), said, reading)
    }

    /// The hospital's own count.
    pub(crate) fn own(count: &OwnCount, reading: Reading) -> Self {
        let [query, permit] = count.written();
        let said = Said { signed: false, query, permit };
        Self::of((count.permit(), count.permit_digest()), (count.query(), count.query_digest()), said, reading)
    }

    fn of(permit: (&Permit, Digest), query: (&Query, Digest), said: Said, reading: Reading) -> Self {
        let ((permit, permit_digest), (query, query_digest)) = (permit, query);
        Self {
            key: RunKey { permit: permit_digest, query_key: query.key(), run: query.run },
            study_id: permit.study_id.clone(),
            permit_total: Cost::total_of(&permit.dp),
            optout: permit.optout,
            query: query_digest,
            nonce: query.nonce.clone(),
            nonce_expires: query.expires,
            said,
            reading,
        }
    }
}
