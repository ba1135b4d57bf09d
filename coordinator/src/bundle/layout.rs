//! Where what is in a bundle. Paths are made of names of members, numbers and digests, so that none leaves the folder.

use sekisho_protocol::{digest::Digest, log::entry::Kind};

/// How to check it, for people.
pub const README: &str = "README.txt";
/// What it is, for programs (RO-Crate).
pub const CRATE: &str = "ro-crate-metadata.json";
/// The coordinator's signed account of the result.
pub const STATEMENT: &str = "release.dsse.json";
/// The signed question.
pub const QUERY: &str = "query.dsse.json";
/// The permit.
pub const PERMIT: &str = "permit.dsse.json";
/// What the data are.
pub const SCHEMA: &str = "schema.dsse.json";
/// The status as of the export.
pub const STATUS: &str = "trust/status.dsse.json";
/// The report of the round.
pub const REPORT: &str = "result/report.json";
/// The table of all hospitals.
pub const COMBINED_ARROW: &str = "result/combined.arrow";
/// The same as text.
pub const COMBINED_CSV: &str = "result/combined.csv";
/// The table of each hospital.
pub const BY_HOLDER_ARROW: &str = "result/by-holder.arrow";
/// The same as text.
pub const BY_HOLDER_CSV: &str = "result/by-holder.csv";
/// The cosigned checkpoint of the coordinator's log.
pub const CHECKPOINT: &str = "log/checkpoint";

/// The folders of what there may be several of.
pub const ROSTERS: &str = "trust/rosters/";
/// Rotations of the governance key.
pub const GOVERNANCE: &str = "trust/governance/";
/// Committees after the pinned one.
pub const COMMITTEES: &str = "trust/committees/";
/// Reviews of the output.
pub const REVIEWS: &str = "reviews/";

/// The end of the path of a signed document.
pub const DSSE: &str = ".dsse.json";

/// A roster, by number.
pub fn roster(seq: u64) -> String {
    format!("{ROSTERS}{seq}{DSSE}")
}

/// A rotation of the governance key, by number.
pub fn governance(seq: u64) -> String {
    format!("{GOVERNANCE}{seq}{DSSE}")
}

/// A committee, by number.
pub fn committee(seq: u64) -> String {
    format!("{COMMITTEES}{seq}{DSSE}")
}

/// A review of the output, by digest.
pub fn review(digest: Digest) -> String {
    format!("{REVIEWS}{digest}{DSSE}")
}

/// A hospital's receipt.
pub fn receipt(name: &str) -> String {
    format!("receipts/{name}{DSSE}")
}

/// A hospital's answer to the permit.
pub fn acceptance(name: &str) -> String {
    format!("acceptances/{name}{DSSE}")
}

/// What a hospital's release is.
pub fn header(name: &str) -> String {
    format!("releases/{name}.header.json")
}

/// The numbers of a hospital's release.
pub fn cells(name: &str) -> String {
    format!("releases/{name}.cells")
}

/// The checkpoint of a hospital's log under which its receipt is.
pub fn hospital_checkpoint(name: &str) -> String {
    format!("hospitals/{name}.checkpoint")
}

/// The proof that a hospital's receipt is in its own log.
pub fn hospital_proof(name: &str) -> String {
    format!("hospitals/{name}.receipt.tlog-proof")
}

/// The proof that the statement at `path` is in the coordinator's log.
pub fn proof(path: &str) -> String {
    format!("proofs/{path}.tlog-proof")
}

/// What the statement at `path` is called in the coordinator's log; none for what is no statement.
pub fn kind(path: &str) -> Option<Kind> {
    match path {
        STATEMENT => return Some(Kind::Release),
        QUERY => return Some(Kind::Query),
        PERMIT => return Some(Kind::Permit),
        SCHEMA => return Some(Kind::Schema),
        STATUS => return Some(Kind::Status),
        _ => {}
    }
    let folders = [
        (ROSTERS, DSSE, Kind::Roster),
        (GOVERNANCE, DSSE, Kind::Governance),
        (COMMITTEES, DSSE, Kind::Committee),
        (REVIEWS, DSSE, Kind::OutputReview),
        ("receipts/", DSSE, Kind::Receipt),
        ("acceptances/", DSSE, Kind::Acceptance),
        ("hospitals/", ".checkpoint", Kind::Checkpoint),
    ];
    let found = folders.into_iter().find(|(folder, end, _)| path.starts_with(folder) && path.ends_with(end));
    found.map(|(_, _, kind)| kind)
}
