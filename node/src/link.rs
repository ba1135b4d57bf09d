//! The node's side of the control stream: it says hello, and then what it holds, every few seconds.
//!
//! The coordinator learns from it which documents are missing, and hands them in by Flight. It says what it saw last of this
//! node's log, which the node compares with its own, and offers
//! checkpoints of its own log, and of other hospitals' logs, which the node witnesses; nothing else that arrives here is acted on.

use std::{sync::Arc, time::Duration};

use sekisho_protocol::{
    control::{self, FromCoordinator, FromNode, Hello, Holdings, Succession, VERSION},
    refusal::{Code, Refusal},
    transport::{Network, P2pIo, PeerId, read_frame, write_frame},
};
use tracing::{debug, info, warn};

use crate::answer::{Answering, SOFTWARE};

/// How often a node says what it holds.
const EVERY: Duration = Duration::from_secs(5);
/// How long a frame may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before another control stream is opened.
const AGAIN: Duration = Duration::from_millis(500);
/// How long to wait after a write-off was handed over: one that is not taken is handed over again and again.
const PAUSE: Duration = Duration::from_secs(2);
/// The most permits that are named; the newest ones.
const MAX_PERMITS: usize = 1024;

/// Keeps a control stream to the coordinator for as long as the process lives.
pub async fn keep(network: Network, coordinator: PeerId, node: Arc<Answering>) {
    let mut connected = network.connected();
    loop {
        if connected.wait_for(|peers| peers.contains(&coordinator)).await.is_err() {
            return;
        }
        match network.open_control(coordinator).await {
            Ok(mut stream) => match talk(&mut stream, &node).await {
                Ok(()) => return,
                Err(why) => debug!(%why, "control stream ended"),
            },
            Err(why) => debug!(%why, "no control stream"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Why a control stream ended.
#[derive(Debug, thiserror::Error)]
enum TalkError {
    #[error(transparent)]
    Frame(#[from] control::FrameError),
    #[error(transparent)]
    Transport(#[from] sekisho_protocol::transport::FrameError),
    #[error("the coordinator speaks another version of the control messages")]
    Version,
    #[error("the coordinator's answer is out of order")]
    Order,
    #[error("{0}")]
    Log(String),
    #[error("the node's documents cannot be read")]
    Documents,
}

async fn talk(stream: &mut P2pIo, node: &Answering) -> Result<(), TalkError> {
    let hello = Hello { version: VERSION, name: node.trust.name.clone(), software: SOFTWARE.into() };
    send(stream, &FromNode::Hello(hello)).await?;
    match control::decode(&read_frame(stream, WITHIN).await?)? {
        FromCoordinator::Welcome { version: VERSION, software, newest } => {
            info!(%software, "coordinator reached");
            let log = |refusal: Refusal| TalkError::Log(refusal.detail);
            if let Some(succession) = node.told(newest.as_deref()).await.map_err(log)? {
                return hand_over(stream, node, succession).await;
            }
        }
        FromCoordinator::Welcome { .. } => {
            warn!("the coordinator speaks another version: update the older side");
            return Err(TalkError::Version);
        }
        FromCoordinator::Ack { .. } => return Err(TalkError::Order),
    }
    let _reached = node.watch.reached();
    let unreadable = |_| TalkError::Log("its name cannot be read".into());
    let origin = node.origin().await.map_err(unreadable)?;
    let mut cosignature: Option<String> = None;
    for id in 1.. {
        // A lost log was written off beside the running node: the coordinator is told of it from the beginning.
        if node.origin().await.map_err(unreadable)? != origin {
            return Err(TalkError::Log("it has another name now".into()));
        }
        let sent = cosignature.take();
        let holdings = Holdings { id, cosignature: sent, ..holdings(node).await.map_err(|_| TalkError::Documents)? };
        send(stream, &FromNode::Holdings(holdings)).await?;
        let offer = match control::decode(&read_frame(stream, WITHIN).await?)? {
            FromCoordinator::Ack { id: answered, offer } if answered == id => offer,
            FromCoordinator::Ack { .. } | FromCoordinator::Welcome { .. } => return Err(TalkError::Order),
        };
        if let Some(offer) = offer {
            match node.witness(&offer).await {
                Ok(line) => {
                    cosignature = Some(line.to_string());
                    // The coordinator waits for it.
                    continue;
                }
                Err(refusal) => warn!(%refusal, "a checkpoint is not witnessed"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}

/// Hands over the log that goes on in the place of a lost one, and ends the stream: the next one tells whether it was taken.
async fn hand_over(stream: &mut P2pIo, node: &Answering, succession: Succession) -> Result<(), TalkError> {
    let held = holdings(node).await.map_err(|_| TalkError::Documents)?;
    let holdings = Holdings { id: 1, permits: Vec::new(), others: Vec::new(), succession: Some(succession), ..held };
    send(stream, &FromNode::Holdings(holdings)).await?;
    drop(read_frame(stream, WITHIN).await?);
    tokio::time::sleep(PAUSE).await;
    Err(TalkError::Log("the write-off of the lost log was handed over".into()))
}

/// What this node holds, as yet without a number.
async fn holdings(node: &Answering) -> Result<Holdings, Refusal> {
    let seqs = node.documents.seqs().await?;
    let unreadable = |_| Refusal::new(Code::Unavailable, "the hospital's catalogues cannot be read");
    let permits = node.documents.permit_digests().await?;
    Ok(Holdings {
        id: 0,
        governance_seq: seqs.governance,
        committee_seq: seqs.committee,
        orders: seqs.orders,
        roster_seq: seqs.roster,
        status_seq: seqs.status,
        catalogue_seq: node.shelf.newest_seq().await.map_err(unreadable)?,
        witnessed: node.witnessed().await?,
        others: node.witnessed_others().await?,
        cosignature: None,
        permits: permits.into_iter().take(MAX_PERMITS).map(|d| *d.as_bytes()).collect(),
        succession: None,
    })
}

async fn send(stream: &mut P2pIo, message: &FromNode) -> Result<(), TalkError> {
    Ok(write_frame(stream, &control::encode(message)?, WITHIN).await?)
}
