//! Sending a node the documents that it lacks, one at a time: first what says whose signatures count (rotations of the
//! governance key, committees), then roster, status, regulators' orders, and permits.
//!
//! A node verifies them for itself; to a permit it answers with a signed `acceptance/1`, which is verified and kept.

use std::{convert::Infallible, time::Duration};

use arrow_flight::Action;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use sekisho_protocol::{
    control::Holdings,
    digest::Digest,
    dsse::Envelope,
    orders::Orders,
    permit::Permit,
    receipt::Acceptance,
    refusal::{Code, Refusal},
    roster::Member,
};
use tokio::time::timeout;

use super::{Nodes, Peer, holder, holder_refused, keys_of, lock, nodes_of, refusal_of_node};
use crate::{
    documents::{Accepted, Chains, Current, Held},
    report::{HolderReport, HolderState},
    store::Kind,
};

/// How long a node may take over one document, and a person waits for all nodes.
const PUSH_TIME: Duration = Duration::from_secs(5);
/// How many nodes are sent a new document at once.
const PUSHES: usize = 64;
/// The pause after a node did not take a document: the first, and the longest.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The most bytes of a node's answer to a document.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The most permits that are noted as sent; beyond it the node says for itself what it holds.
const MAX_NOTED: usize = 2000;

/// A document that a node lacks.
struct Missing<'a> {
    accepted: Accepted,
    seq: u64,
    envelope: &'a [u8],
}

impl<'a> Missing<'a> {
    fn of<D>(kind: Kind, seq: u64, held: &'a Held<D>) -> Self {
        Self { accepted: Accepted { kind, digest: held.digest() }, seq, envelope: held.envelope() }
    }
}

/// What `node` lacks of the documents in force, in the order in which it must learn them.
fn missing<'a>(current: &'a Current, holdings: &Holdings, node: &'a str, now: DateTime<Utc>) -> Vec<Missing<'a>> {
    let mut missing = Vec::new();
    if let Some(chains) = current.chains() {
        let rotations = chains.rotations().iter().filter(|held| held.seq > holdings.governance_seq);
        missing.extend(rotations.map(|held| Missing::of(Kind::Governance, held.seq, held)));
        let elections = chains.elections().iter().filter(|held| held.seq > holdings.committee_seq);
        missing.extend(elections.map(|held| Missing::of(Kind::Committee, held.seq, held)));
    }
    if let Ok(roster) = current.roster(now)
        && roster.seq > holdings.roster_seq
    {
        missing.push(Missing::of(Kind::Roster, roster.seq, roster));
    }
    if let Ok(status) = current.status(now)
        && status.seq > holdings.status_seq
    {
        missing.push(Missing::of(Kind::Status, status.seq, status));
    }
    for held in current.chains().map(Chains::orders).unwrap_or_default() {
        // A node names the regulators that it obeys; it refuses the orders of others.
        let known = holdings.orders.iter().find(|(name, _)| *name == held.regulator);
        if known.is_some_and(|(_, seq)| *seq < held.seq) {
            missing.push(Missing::of(Kind::Orders, held.seq, held));
        }
    }
    let holds = |permit: Digest| holdings.permit_digests().any(|held| held == permit);
    missing.extend(
        current.permits_for(node, now).filter(|permit| !holds(permit.digest())).map(|permit| permission(permit)),
    );
    missing
}

fn permission(permit: &Held<Permit>) -> Missing<'_> {
    Missing::of(Kind::Permit, 0, permit)
}

impl Nodes {
    /// Sends what a node lacks whenever it says what it holds.
    pub(super) async fn push_when_behind<E>(&self, peer: &Peer) -> Result<Infallible, E> {
        let mut pause = PAUSE;
        loop {
            peer.spoke.notified().await;
            // A catalogue that cannot be had keeps no document back.
            let (pushed, fetched) = (self.push_missing(peer).await, self.fetch_catalogues(peer).await);
            match pushed.and(fetched) {
                Ok(()) => pause = PAUSE,
                Err(refusal) => {
                    tracing::warn!(peer = %peer.id, code = %refusal.code, "a node did not take a document, or hand one out");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn push_missing(&self, peer: &Peer) -> Result<(), Refusal> {
        let _turn = peer.push.lock().await;
        let current = self.documents.current();
        let Some(member) = current.pinned_roster().and_then(|roster| roster.member_by_peer(&peer.id.to_string()))
        else {
            return Ok(());
        };
        let holdings = lock(&peer.holdings).clone();
        let mut failed = Ok(());
        for document in missing(&current, &holdings, &member.name, self.clock.now()) {
            match self.send(peer, member, &current, &document).await {
                Ok(_) => {}
                Err(refusal) if refusal.code == Code::Offline => return Err(refusal),
                Err(refusal) => failed = Err(refusal),
            }
        }
        failed
    }

    /// Sends a new document, and what they lack before it, to all nodes that it concerns; a schema or a review of output
    /// concerns none.
    pub async fn announce(&self, accepted: Accepted) -> Vec<HolderReport> {
        let current = self.documents.current();
        let names = match accepted.kind {
            Kind::Roster | Kind::Status | Kind::Committee | Kind::Governance | Kind::Orders => {
                nodes_of(&current).map(|member| member.name.clone()).collect()
            }
            Kind::Schema
            | Kind::Application
            | Kind::Review
            | Kind::Decision
            | Kind::Publication
            | Kind::OutputReview
            | Kind::Catalogue => Vec::new(),
            Kind::Permit => current.permit(accepted.digest).map(|permit| permit.holders()).unwrap_or_default(),
        };
        let one = async |name: String| match current.pinned_roster().and_then(|roster| roster.member(&name)) {
            Some(member) => self.tell(member, &current, accepted).await,
            None => holder_refused(&name, Refusal::new(Code::NotOnRoster, "the roster has no such hospital")),
        };
        stream::iter(names).map(one).buffered(PUSHES).collect().await
    }

    async fn tell(&self, member: &Member, current: &Current, accepted: Accepted) -> HolderReport {
        let late = || Refusal::new(Code::Offline, format!("no answer within {} s", PUSH_TIME.as_secs()));
        let told = timeout(PUSH_TIME, self.deliver(member, current, accepted)).await;
        match told.unwrap_or_else(|_| Err(late())) {
            Ok(None) => holder(&member.name, HolderState::Answered),
            Ok(Some(refusal)) => holder_refused(&member.name, refusal),
            Err(refusal) => holder_refused(&member.name, refusal),
        }
    }

    /// Sends one document after what comes before it; the answer is why a permit was not accepted.
    async fn deliver(
        &self,
        member: &Member,
        current: &Current,
        accepted: Accepted,
    ) -> Result<Option<Refusal>, Refusal> {
        let id = self.connected(member).ok_or_else(|| Refusal::new(Code::Offline, "it is not connected"))?;
        let peer = self.peer(id);
        let _turn = peer.push.lock().await;
        let holdings = lock(&peer.holdings).clone();
        let mut documents = missing(current, &holdings, &member.name, self.clock.now());
        // A permit that was handed in again is sent again, for the sake of the node's answer.
        if accepted.kind == Kind::Permit && !documents.iter().any(|d| d.accepted == accepted) {
            documents.push(permission(current.permit(accepted.digest)?));
        }
        if accepted.kind == Kind::Orders && !documents.iter().any(|d| d.accepted == accepted) {
            let held = current.chains().map(Chains::orders).unwrap_or_default();
            let orders = held.iter().find(|held| held.digest() == accepted.digest);
            let known =
                |o: &Held<Orders>| holdings.orders.iter().any(|(name, seq)| *name == o.regulator && *seq >= o.seq);
            if !orders.is_some_and(|orders| known(orders)) {
                let detail = "it pins no such regulator, or has not said yet what it holds";
                return Err(Refusal::new(Code::NotAuthorised, detail));
            }
        }
        // Other permits wait for the node's next word.
        documents.retain(|d| d.accepted.kind != Kind::Permit || d.accepted == accepted);
        let mut answer = Ok(None);
        for document in &documents {
            let sent = self.send(&peer, member, current, document).await;
            if sent.as_ref().is_err_and(|refusal| refusal.code == Code::Offline) {
                return sent;
            }
            if document.accepted == accepted {
                answer = sent;
            }
        }
        answer
    }

    /// Sends one document; the caller has the peer's turn.
    async fn send(
        &self,
        peer: &Peer,
        member: &Member,
        current: &Current,
        document: &Missing<'_>,
    ) -> Result<Option<Refusal>, Refusal> {
        let late = |_| Refusal::new(Code::Offline, format!("no answer within {} s", PUSH_TIME.as_secs()));
        let body = timeout(PUSH_TIME, self.put(member, document.envelope)).await.map_err(late)??;
        let refused = match document.accepted.kind {
            Kind::Permit => self.accept_answer(member, current, document.accepted.digest, &body).await?,
            Kind::Roster
            | Kind::Status
            | Kind::Schema
            | Kind::Committee
            | Kind::Governance
            | Kind::Orders
            | Kind::Application
            | Kind::Review
            | Kind::Decision
            | Kind::Publication
            | Kind::OutputReview
            | Kind::Catalogue => None,
        };
        let mut holdings = lock(&peer.holdings);
        match document.accepted.kind {
            Kind::Roster => holdings.roster_seq = holdings.roster_seq.max(document.seq),
            Kind::Status => holdings.status_seq = holdings.status_seq.max(document.seq),
            Kind::Permit if holdings.permits.len() < MAX_NOTED => {
                holdings.permits.push(*document.accepted.digest.as_bytes());
            }
            Kind::Governance => holdings.governance_seq = holdings.governance_seq.max(document.seq),
            Kind::Committee => holdings.committee_seq = holdings.committee_seq.max(document.seq),
            // The node says for itself which orders it holds; the rest is not for nodes.
            Kind::Permit
            | Kind::Orders
            | Kind::Schema
            | Kind::Application
            | Kind::Review
            | Kind::Decision
            | Kind::Publication
            | Kind::OutputReview
            | Kind::Catalogue => {}
        }
        Ok(refused)
    }

    async fn put(&self, member: &Member, envelope: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut client = self.flight(member, MAX_ANSWER_BYTES)?;
        let refused = |status| refusal_of_node(&status);
        let answers = client.do_action(Action::new("put", envelope.to_vec())).await.map_err(refused)?;
        let first = answers.into_inner().next().await.transpose().map_err(refused)?;
        Ok(first.map(|answer| answer.body.to_vec()).unwrap_or_default())
    }

    /// Verifies and keeps a node's answer to a permit; returns why it did not accept, if it did not.
    async fn accept_answer(
        &self,
        member: &Member,
        current: &Current,
        permit: Digest,
        body: &[u8],
    ) -> Result<Option<Refusal>, Refusal> {
        let malformed = |detail: &str| Refusal::new(Code::Malformed, detail);
        let envelope = Envelope::from_json::<Acceptance>(body)?;
        let answer = envelope.verify::<Acceptance>(&keys_of(member, current), 1)?;
        if answer.node != member.name || answer.permit != permit {
            return Err(malformed("the acceptance is of another hospital or permit"));
        }
        let kept = self.store.put_acceptance(&member.name, permit, &envelope.to_json(), self.clock.now()).await;
        if let Err(error) = kept {
            tracing::error!(%error, "an acceptance could not be stored");
        }
        let why = answer.reason.as_deref().unwrap_or("the hospital has not accepted the permit");
        Ok(answer.refused.map(|code| Refusal::new(code, why)))
    }
}
