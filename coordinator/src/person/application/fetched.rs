//! Applications that the coordinator keeps, or that lie in a file, checked for who signed them.

use std::path::Path;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    access::Item,
    application::Application,
    dsse::{Envelope, Verified},
    key_file,
    keys::SecretKey,
    refusal::{Code, Refusal},
    roster::is_name,
};

use crate::{
    person::{Context, door::Door, failure::Failure, file},
    report::Listed,
};

/// An application as the coordinator keeps it, signed by one of its people.
pub struct Fetched {
    /// The application.
    pub application: Verified<Application>,
    /// When it was handed in.
    pub put_at: Option<DateTime<Utc>>,
}

/// All versions of the application `id`, the newest first, each signed by one of its people.
///
/// # Errors
/// When the key's owner may not read it, or the coordinator sends something else.
pub async fn versions(id: &str, key: &SecretKey, door: &mut Door, now: DateTime<Utc>) -> Result<Vec<Fetched>, Failure> {
    if !is_name(id) {
        return Err(Failure::input(format!("{id} is no file and no id of an application"), "check the path"));
    }
    let listed: Vec<Listed> = door.read(Item::Application { id: id.into() }, key, now).await?;
    let mut versions = Vec::new();
    for Listed { envelope, put_at, .. } in listed {
        let application = by_its_people(&envelope).map_err(|e| Failure::answer("application", e))?;
        if application.id != id {
            return Err(Failure::answer("application", "it is another than was asked for"));
        }
        versions.push(Fetched { application, put_at: Some(put_at) });
    }
    versions.sort_by_key(|v| std::cmp::Reverse(v.application.version));
    Ok(versions)
}

fn by_its_people(envelope: &Envelope) -> Result<Verified<Application>, sekisho_protocol::dsse::DsseError> {
    let (claimed, _) = envelope.peek::<Application>()?;
    envelope.verify::<Application>(&claimed.keys(), 1)
}

/// The newest version that the key's owner may read; none when there is none, or none for them.
///
/// # Errors
/// When the coordinator cannot be reached, or sends something else.
pub async fn newest(
    id: &str,
    key: &SecretKey,
    door: &mut Door,
    now: DateTime<Utc>,
) -> Result<Option<Fetched>, Failure> {
    match versions(id, key, door, now).await {
        Ok(versions) => Ok(versions.into_iter().next()),
        Err(failure) if [Code::NotAuthorised.as_str(), Code::ApplicationUnknown.as_str()].contains(&failure.code()) => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// An application from a file, or by id from the coordinator: the newest version, unless another is wanted.
///
/// # Errors
/// When there is none, none of its people signed it, or it may not be read.
pub async fn find(name: &str, key: Option<&Path>, version: Option<u32>, context: &Context) -> Result<Fetched, Failure> {
    let path = Path::new(name);
    if path.is_file() {
        let envelope = file::read_envelope::<Application>(path)?;
        let application = by_its_people(&envelope).map_err(|e| Failure::document(path, e))?;
        return Ok(Fetched { application, put_at: None });
    }
    let advice = "add --key with the key of a committee's member, or of a person of the application";
    let key = key.ok_or_else(|| Failure::input("applications are not public", advice))?;
    let mut door = context.door().await?;
    let versions = versions(name, &key_file::read(key)?, &mut door, context.now).await?;
    let wanted = |fetched: &Fetched| version.is_none_or(|version| fetched.application.version == version);
    versions
        .into_iter()
        .find(wanted)
        .ok_or_else(|| Refusal::new(Code::ApplicationUnknown, format!("application {name} has no such version")).into())
}
