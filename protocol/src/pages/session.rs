//! Who is signed in: sessions in memory, each of one token.
//!
//! Promises: a session is 256 random bits, of which memory keeps the hash; there are at most [`MAX_SESSIONS`], and of one token at
//! most [`MAX_OF_ONE`], of which the oldest gives way; it lasts [`LONGEST`] and never longer than its token; it answers so many
//! requests a minute. A restart ends all of them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngCore;

use super::PageToken;
use crate::{digest::Digest, token_file::Line};

/// How many sessions there are at once.
pub const MAX_SESSIONS: usize = 1000;
/// How many of one token.
pub const MAX_OF_ONE: usize = 8;
/// How long a session lasts.
pub const LONGEST: TimeDelta = TimeDelta::hours(8);
/// How many requests of one session are answered in a minute.
pub const MAX_REQUESTS: u32 = 300;

/// Somebody who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name of their token.
    pub name: String,
    /// Their role.
    pub role: String,
    /// Who they are in signed documents.
    pub subject: Option<String>,
}

/// A session, as a request meets it.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) who: Who,
    /// The hash of the token.
    pub(super) token: Digest,
    /// What a form of this session has to bring.
    pub(super) csrf: String,
}

struct Open {
    session: Session,
    started: DateTime<Utc>,
    ends: DateTime<Utc>,
    minute: (DateTime<Utc>, u32),
}

/// What a session's id leads to.
pub(super) enum Found {
    /// A session.
    Open(Session),
    /// None, or one that has ended.
    Closed,
    /// A session that asked too much in this minute.
    Busy,
}

/// The sessions of a site.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Digest, Open>>);

impl Sessions {
    /// Begins a session of a token's owner at the hour `now`, and returns its id.
    pub(super) fn start(&self, token: &PageToken, now: DateTime<Utc>, rng: &mut impl RngCore) -> String {
        let (id, csrf) = (secret(rng), secret(rng));
        let who = Who { name: token.name.clone(), role: token.role.clone(), subject: token.subject.clone() };
        let session = Session { who, token: *token.hash(), csrf };
        let ends = token.expires.min(now + LONGEST);
        let mut open = self.open();
        open.retain(|_, other| now < other.ends);
        while open.values().filter(|other| other.session.token == *token.hash()).count() >= MAX_OF_ONE {
            end_oldest(&mut open, |other| other.session.token == *token.hash());
        }
        if open.len() >= MAX_SESSIONS {
            end_oldest(&mut open, |_| true);
        }
        open.insert(Digest::of(id.as_bytes()), Open { session, started: now, ends, minute: (now, 0) });
        id
    }

    /// The session of this id at the hour `now`; the request counts.
    pub(super) fn find(&self, id: &str, now: DateTime<Utc>) -> Found {
        let (mut open, key) = (self.open(), Digest::of(id.as_bytes()));
        let Some(found) = open.get_mut(&key) else { return Found::Closed };
        if now >= found.ends {
            open.remove(&key);
            return Found::Closed;
        }
        if now - found.minute.0 >= TimeDelta::minutes(1) {
            found.minute = (now, 0);
        }
        found.minute.1 = found.minute.1.saturating_add(1);
        if found.minute.1 > MAX_REQUESTS { Found::Busy } else { Found::Open(found.session.clone()) }
    }

    /// Ends the session of this id.
    pub(super) fn end(&self, id: &str) {
        self.open().remove(&Digest::of(id.as_bytes()));
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Digest, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_oldest(open: &mut HashMap<Digest, Open>, of: impl Fn(&Open) -> bool) {
    let oldest = open.iter().filter(|(_, one)| of(one)).min_by_key(|(_, one)| one.started).map(|(id, _)| *id);
    if let Some(oldest) = oldest {
        open.remove(&oldest);
    }
}

/// 256 random bits as text.
pub(super) fn secret(rng: &mut impl RngCore) -> String {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, expires: i64) -> PageToken {
        PageToken::new(name, "user", at(expires), None, Digest::of(name.as_bytes()))
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    fn is_open(sessions: &Sessions, id: &str, seconds: i64) -> bool {
        matches!(sessions.find(id, at(seconds)), Found::Open(_))
    }

    #[test]
    fn a_session_ends_after_eight_hours_with_its_token_and_at_the_logout() {
        let (sessions, rng) = (Sessions::default(), &mut rand::rng());
        let eight = LONGEST.num_seconds();
        let long = sessions.start(&token("long", 10 * eight), at(0), rng);
        let short = sessions.start(&token("short", 60), at(0), rng);
        let out = sessions.start(&token("out", 10 * eight), at(0), rng);
        assert!(long != short && is_open(&sessions, &long, eight - 1) && is_open(&sessions, &short, 59));
        assert!(!is_open(&sessions, &long, eight) && !is_open(&sessions, &short, 60));
        assert!(!is_open(&sessions, &long, 1), "what has ended does not come back when the clock does");
        assert!(is_open(&sessions, &out, 1));
        sessions.end(&out);
        assert!(!is_open(&sessions, &out, 1) && !is_open(&sessions, "", 1));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_of_a_token_gives_way_first() {
        let (sessions, rng) = (Sessions::default(), &mut rand::rng());
        let other = sessions.start(&token("other", 1000), at(0), rng);
        let mine: Vec<_> =
            (0..=MAX_OF_ONE).map(|n| sessions.start(&token("mine", 1000), at(1 + n as i64), rng)).collect();
        assert!(!is_open(&sessions, &mine[0], 20) && is_open(&sessions, &mine[1], 20));
        assert!(is_open(&sessions, &other, 20));
        for n in 0..MAX_SESSIONS {
            sessions.start(&token(&format!("t-{n}"), 1000), at(20), rng);
        }
        assert_eq!(sessions.open().len(), MAX_SESSIONS);
    }

    #[test]
    fn a_session_is_answered_so_many_times_in_a_minute() {
        let (sessions, rng) = (Sessions::default(), &mut rand::rng());
        let id = sessions.start(&token("busy", 1000), at(0), rng);
        assert!((0..MAX_REQUESTS).all(|_| is_open(&sessions, &id, 59)));
        assert!(matches!(sessions.find(&id, at(59)), Found::Busy));
        assert!(is_open(&sessions, &id, 60), "the next minute");
    }
}
