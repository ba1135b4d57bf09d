//! Attacks, each against a node's own code, or against the processes where it crosses the wire.

mod limits;
