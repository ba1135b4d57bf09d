//! Pages for people, in English and Japanese: what the coordinator's register and a node's console have in common.
//!
//! Promises: a page is made by the server and needs no script; it brings no style and no script but those of [`assets`], and its
//! headers forbid any other; whoever is let in has a token ([`PageToken`]) and a session in memory, which ends with the token; a
//! form is taken only from a page of ours. What somebody else wrote is escaped by the templates.
//!
//! A daemon makes a [`Gate`], merges its routes, and serves them behind [`guarded`]. Handlers take a [`Visitor`], or an extractor
//! that asks it for a role; they return what [`show`] makes, or a [`Fault`], of which the page for people is made here.
//!
//! Deliberately absent: TLS (a reverse proxy's), passwords, accounts, a catalogue of messages: texts are written in pairs where
//! they are used.

pub mod assets;
mod fault;
mod gate;
mod language;
mod login;
mod page;
mod posted;
mod security;
mod session;
#[cfg(test)]
mod tests;
mod token;

pub use self::fault::{Fault, FaultKind};
pub use self::gate::{Denied, Gate, Menu, Site, Visitor, guarded};
pub use self::language::Language;
pub use self::page::{Link, Moment, Page, grouped, show};
pub use self::posted::Posted;
pub use self::security::{NotAnOrigin, Origin};
pub use self::session::{Sessions, Who};
pub use self::token::PageToken;
