//! A process that charges and logs until it is killed.

use std::{io::Write, path::Path};

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_node::{
    ledger::{Asked, Caps, ChargeRequest, Cost, Ledger, Reserved, RunKey},
    store::Store,
};
use sekisho_protocol::{
    digest::Digest,
    permit::{OptOut, OptOutRule},
    units::MicroRho,
};

/// The ledger in the database at `path`, which no cap bounds.
pub async fn unbounded(path: &Path) -> (Store, Ledger) {
    let store = Store::open(path).await.unwrap();
    let lifetime = Cost { micro_rho: MicroRho::MAX, ..Cost::ZERO };
    (store.clone(), Ledger::new(store, Caps { lifetime, window: None }))
}

/// Charges runs from number `from` on; prints a line with the number of each charge once it
/// is durable. It ends when it is killed.
pub async fn charge_for_ever(path: &Path, from: u32) {
    let (_, ledger) = unbounded(path).await;
    ledger.earmark("study", MicroRho::MAX).await.unwrap();
    let mut out = std::io::stdout().lock();
    for number in from.. {
        let reserved = ledger.reserve(&request(number), format!("reservation {number}").as_bytes()).await.unwrap();
        let (Reserved::New(_) | Reserved::Existing(_)) = reserved;
        writeln!(out, "{number}").unwrap();
        out.flush().unwrap();
    }
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_780_000_000, 0).unwrap()
}

fn request(number: u32) -> ChargeRequest {
    let message = number.to_string();
    let digest = Digest::of(message.as_bytes());
    ChargeRequest {
        key: RunKey { permit: Digest::of(b"permit"), query_key: digest, run: 1 },
        study_id: "study".into(),
        permit_total: Cost { micro_rho: MicroRho::MAX, ..Cost::ZERO },
        query: digest,
        nonce: message.clone(),
        nonce_expires: at(),
        cost: Cost { micro_rho: MicroRho::try_from(1).unwrap(), ..Cost::ZERO },
        register_seq: 0,
        as_of: NaiveDate::from_ymd_opt(2026, 6, 1).unwrap(),
        snapshot: "snapshot".into(),
        asked: Asked {
            signed: true,
            query: message.into(),
            permit: b"permit".into(),
            own_rule: OptOut { rule: OptOutRule::EuEhds, days: 0 },
        },
        at: at(),
    }
}
