//! Fetching a node's catalogues: those that are newer than what is kept, one after another, so that the history is whole.
//!
//! A node says the number of its newest one on its control stream. What it hands out is verified like any document that is handed
//! in. Deliberately absent: any haste; a catalogue that was not had is asked for when the node next says what it holds.

use std::time::Duration;

use arrow_flight::Action;
use futures::StreamExt;
use sekisho_protocol::{
    catalogue::Catalogue,
    control::ACTION_CATALOGUE,
    dsse::{Document, Envelope},
    refusal::{Code, Refusal},
    roster::Member,
};
use tokio::time::timeout;

use super::{Nodes, Peer, lock, refusal_of_node};

/// How long a node may take over one catalogue.
const FETCH_TIME: Duration = Duration::from_secs(10);
/// The most catalogues that are fetched at once; the others come with the node's next word.
const AT_ONCE: u64 = 16;
/// The most bytes of an answer: the envelope of the largest catalogue, and its framing.
const MAX_BYTES: usize = 2 * Catalogue::MAX_BYTES;

impl Nodes {
    /// Fetches what a node published since.
    pub(super) async fn fetch_catalogues(&self, peer: &Peer) -> Result<(), Refusal> {
        let newest = lock(&peer.holdings).catalogue_seq;
        let current = self.documents.current();
        let Some(member) = current.pinned_roster().and_then(|roster| roster.member_by_peer(&peer.id.to_string()))
        else {
            return Ok(());
        };
        let kept = current.catalogue(&member.name).map_or(0, |catalogue| catalogue.seq);
        for seq in (kept + 1..=newest).take(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let late = |_| Refusal::new(Code::Offline, "the hospital's catalogue did not arrive in time");
            let bytes = timeout(FETCH_TIME, self.hand_out(member, seq)).await.map_err(late)??;
            let wrong = |detail: &str| Refusal::new(Code::Malformed, detail);
            let (catalogue, _) = Envelope::from_json::<Catalogue>(&bytes)?.peek::<Catalogue>()?;
            if catalogue.node != member.name || catalogue.seq != seq {
                return Err(wrong("the hospital handed out another catalogue than was asked for"));
            }
            self.documents.put(&bytes, self.clock.now()).await?;
            tracing::info!(node = member.name, seq, "a catalogue was fetched");
        }
        Ok(())
    }

    async fn hand_out(&self, member: &Member, seq: u64) -> Result<Vec<u8>, Refusal> {
        let mut client = self.flight(member, MAX_BYTES)?;
        let refused = |status| refusal_of_node(&status);
        let answers = client.do_action(Action::new(ACTION_CATALOGUE, seq.to_string())).await.map_err(refused)?;
        let first = answers.into_inner().next().await.transpose().map_err(refused)?;
        Ok(first.map(|answer| answer.body.to_vec()).unwrap_or_default())
    }
}
