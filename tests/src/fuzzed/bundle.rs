//! A release bundle from a stranger: the first byte names a file of the bundle in `protocol/testdata`, and the rest is put in its
//! place; past the files, the rest is a zip archive.

use std::{collections::BTreeMap, path::Path, sync::OnceLock};

use sekisho_coordinator::bundle::{archive, trust::Trust, verify::verify};
use tokio::runtime::{Builder, Runtime};

struct Known {
    files: BTreeMap<String, Vec<u8>>,
    trust: Trust,
    runtime: Runtime,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata/bundle");
        let trust = std::fs::read_to_string(folder.join("trust.toml")).unwrap();
        let trust = Trust::parse(&trust, |path| std::fs::read(folder.join(path))).unwrap();
        let files = archive::folder(&folder.join("release")).unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let known = Known { files, trust, runtime };
        assert!(known.verified(&known.files), "the bundle itself does not verify");
        known
    })
}

impl Known {
    fn verified(&self, files: &BTreeMap<String, Vec<u8>>) -> bool {
        self.runtime.block_on(verify(files, &self.trust)).verified
    }
}

/// One input: nothing but the bundle itself verifies.
///
/// # Panics
/// When something else does.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let known = known();
    let Some(path) = known.files.keys().nth((*choice).into()) else {
        if let Ok(files) = archive::unzip(rest) {
            assert!(!known.verified(&files) || files == known.files, "another bundle verifies");
        }
        return;
    };
    let mut files = known.files.clone();
    files.insert(path.clone(), rest.to_vec());
    assert_eq!(known.verified(&files), files == known.files, "{path} with other bytes");
}
