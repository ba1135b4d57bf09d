//! A node's control stream: hello, welcome, then holdings and their acknowledgements.
//!
//! The node opens the stream. A frame that is late, malformed or out of turn ends it; the node opens another.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sekisho_protocol::{
    control::{self, FromCoordinator, FromNode, Holdings, VERSION},
    transport::{self, P2pIo, PeerId, read_frame, write_frame},
};

use super::{Nodes, Peer, SILENCE, lock};
use crate::store::StoreError;

/// How long one frame may take to be written, and the first one to arrive.
const FRAME_TIME: Duration = Duration::from_secs(10);

/// Why a control stream was ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Stream(#[from] transport::FrameError),
    #[error(transparent)]
    Frame(#[from] control::FrameError),
    #[error("the first frame is no hello")]
    NoHello,
    #[error("the node speaks version {0} of the control messages, not {VERSION}")]
    Version(u16),
    #[error("the name in the hello is not that of the roster")]
    Name,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a second hello")]
    SecondHello,
}

impl Nodes {
    /// Serves one control stream until it ends.
    pub(super) async fn serve(self: Arc<Self>, peer: Arc<Peer>, mut io: P2pIo) {
        let ended = tokio::select! {
            ended = self.converse(&peer, &mut io) => ended,
            never = self.push_when_behind(&peer) => never,
        };
        match ended {
            Ok(never) => match never {},
            Err(Ended::Stream(transport::FrameError::Closed | transport::FrameError::Io(_))) => {
                tracing::debug!(peer = %peer.id, "the control stream ended");
            }
            Err(reason) => tracing::warn!(peer = %peer.id, %reason, "the control stream is dropped"),
        }
    }

    async fn converse(&self, peer: &Peer, io: &mut P2pIo) -> Result<Infallible, Ended> {
        let FromNode::Hello(hello) = control::decode(&read_frame(io, FRAME_TIME).await?)? else {
            return Err(Ended::NoHello);
        };
        if hello.version != VERSION {
            return Err(Ended::Version(hello.version));
        }
        let name = self.name_of(peer.id).ok_or(Ended::Name)?;
        if hello.name != name {
            return Err(Ended::Name);
        }
        let software = concat!("sekisho-coordinator ", env!("CARGO_PKG_VERSION")).to_string();
        let newest = self.store.newest_checkpoint(&name).await?.map(|newest| newest.to_string());
        let welcome = control::encode(&FromCoordinator::Welcome { version: VERSION, software, newest })?;
        write_frame(io, &welcome, FRAME_TIME).await?;
        tracing::info!(peer = %peer.id, node = name, "a node said hello");
        loop {
            let FromNode::Holdings(holdings) = control::decode(&read_frame(io, SILENCE).await?)? else {
                return Err(Ended::SecondHello);
            };
            let id = holdings.id;
            if let Some(succession) = &holdings.succession {
                self.succeed(&name, succession).await?;
            }
            let offer = self.witnessing(peer.id, &holdings).await?;
            let ack = control::encode(&FromCoordinator::Ack { id, offer })?;
            *lock(&peer.holdings) = holdings;
            peer.spoke.notify_one();
            write_frame(io, &ack, FRAME_TIME).await?;
        }
    }

    /// Takes a hospital's cosignature, and says what it is asked to witness next.
    async fn witnessing(&self, id: PeerId, holdings: &Holdings) -> Result<Option<String>, StoreError> {
        let current = self.documents.current();
        let Some(member) = current.pinned_roster().and_then(|roster| roster.member_by_peer(&id.to_string())) else {
            return Ok(None);
        };
        if let Some(line) = &holdings.cosignature
            && !self.witnesses.take(member, line)
            && !self.witnesses.take_of_other(member, line).await?
        {
            tracing::debug!(node = member.name, "a cosignature is not on what is offered now");
        }
        // Without roster and status a hospital does not know whose log it is asked to witness.
        if holdings.roster_seq == 0 || holdings.status_seq == 0 {
            return Ok(None);
        }
        let offer = self.witnesses.offer(member, holdings.witnessed).await?;
        Ok(offer.map(|offer| offer.to_string()))
    }

    /// The roster's name of a peer.
    pub(super) fn name_of(&self, id: PeerId) -> Option<String> {
        let current = self.documents.current();
        let member = current.pinned_roster()?.member_by_peer(&id.to_string())?;
        Some(member.name.clone())
    }
}
