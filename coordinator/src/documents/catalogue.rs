//! Catalogues among the documents: each hospital's own line, signed by the key that the roster gives it.
//!
//! A catalogue stays what it was when its hospital leaves the roster or changes its key: then it is kept, and no longer shown.

use std::{collections::BTreeMap, sync::Arc};

use sekisho_protocol::{
    catalogue::Catalogue,
    dsse::{Document, Envelope},
    refusal::{Code, Refusal},
    roster::Role,
    sequence::{Gaps, Offered, follows},
};

use super::{Checked, Current, DocumentsError, Held, Kept, MAX_LISTED, held};
use crate::{
    network::keys_of,
    store::{Kind, Place, Store},
};

/// That the envelope is the catalogue of a hospital of the roster, and follows the one that is kept.
pub(super) fn check(envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
    let new = verified(envelope, current)?;
    let newest = current.catalogue(&new.node).map(|kept| (kept.seq, kept.digest()));
    let (name, seq, prev, digest) = (Catalogue::NAME, new.seq, new.prev, new.digest());
    follows(&Offered { name, seq, prev, digest }, newest, Gaps::Allowed)?;
    Ok((digest, Place { name: new.node.clone(), seq: new.seq }, new.envelope))
}

/// The newest catalogue of each hospital whose signature counts.
pub(super) async fn load(
    store: &Store,
    current: &Current,
) -> Result<BTreeMap<String, Arc<Held<Catalogue>>>, DocumentsError> {
    let mut newest = BTreeMap::new();
    for Kept { name, envelope, .. } in store.newest_of_each(Kind::Catalogue, MAX_LISTED).await? {
        match verified(&envelope, current) {
            Ok(catalogue) => drop(newest.insert(name, Arc::new(catalogue))),
            Err(refusal) => tracing::warn!(node = name, code = %refusal.code, "a stored catalogue is not shown"),
        }
    }
    Ok(newest)
}

fn verified(envelope: &[u8], current: &Current) -> Result<Held<Catalogue>, Refusal> {
    let (claimed, _) = Envelope::from_json::<Catalogue>(envelope)?.peek::<Catalogue>()?;
    let roster = current.pinned_roster();
    let member = roster.and_then(|roster| roster.member(&claimed.node)).filter(|member| member.role == Role::Node);
    let member = member.ok_or_else(|| Refusal::new(Code::NotOnRoster, "the roster has no such hospital"))?;
    Ok(held(envelope, &keys_of(member, current), 1)?)
}
