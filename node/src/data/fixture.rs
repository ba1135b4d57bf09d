//! A small data set on disk for the tests of this folder.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use arrow::{array::RecordBatch, util::pretty::pretty_format_batches};
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use sekisho_protocol::{
    dsse::Envelope,
    keys::{PublicKey, SecretKey},
    schema::Schema,
};
use tempfile::TempDir;

use super::{
    mapping::{Mapping, MappingError},
    protected::{self, Eligible},
    snapshot::{self, Progress, Settings, Snapshot, SnapshotError},
};
use crate::hooks::Hooks;

pub(super) struct Fixture {
    directory: TempDir,
    key: SecretKey,
}

/// Everybody but these.
pub(super) struct AllBut(pub(super) BTreeSet<String>);

impl Eligible for AllBut {
    fn int_run(&self, id: i64, _: &mut usize) -> (bool, Option<i64>) {
        (!self.0.contains(&id.to_string()), Some(id))
    }

    fn contains_text(&self, id: &str, _: &mut usize) -> bool {
        !self.0.contains(id)
    }
}

impl Fixture {
    pub(super) const SCHEMA: &'static str = r#"{"id":"s","version":1,"title":"","tables":[
        {"name":"visit","patient":"pid","columns":[
            {"name":"pid","type":"text"},{"name":"age","type":"int64"},
            {"name":"weight","type":"decimal","scale":1},{"name":"seen","type":"date"},{"name":"died","type":"bool"}]},
        {"name":"person","patient":"pid","one_row_per_patient":true,"columns":[
            {"name":"pid","type":"int64"},{"name":"weight","type":"decimal","scale":1}]},
        {"name":"chapter","public":"ICD-10 chapters","columns":[{"name":"code","type":"text"}]}]}"#;

    pub(super) const MAPPING: &'static str = r#"
id = "west"
synthetic = true
schema = "schema.dsse.json"
[tables.visit]
source = "visit.csv.gz"
[tables.visit.columns]
pid = "Uid"
age = { sql = "CASE WHEN Age = '> 89' THEN 90 ELSE CAST(Age AS BIGINT) END" }
weight = "kg"
seen = "day"
died = "dead"
"#;

    pub(super) const VISITS: &'static str = "Uid,Age,kg,day,dead\n\
        007,> 89,81.25,2020-02-29,1\n\
        010,40,-0.25,2020-01-01,false\n\
        ,50,70,2020-01-01,0\n\
        7,x,\"7\n0\",2020-02-30,maybe\n\
        007,30,,,TRUE\n";

    pub(super) fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap(), key: SecretKey::generate(&mut rand::rng()) };
        fixture.sign(Self::SCHEMA);
        fixture.write("mapping.toml", Self::MAPPING);
        fixture
    }

    /// With the visits' source written.
    pub(super) async fn with_visits() -> Self {
        let fixture = Self::new();
        fixture.gzip("visit.csv.gz", Self::VISITS).await;
        fixture
    }

    pub(super) fn sign(&self, schema: &str) {
        let schema: Schema = serde_json::from_str(schema).unwrap();
        let envelope = Envelope::sign(&schema, &[&self.key]).unwrap();
        fs::write(self.path("schema.dsse.json"), envelope.to_json()).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes text as a gzip file.
    pub(super) async fn gzip(&self, name: &str, text: &str) {
        use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
        use futures::{StreamExt, stream};
        let bytes = stream::iter([Ok(text.as_bytes().to_vec().into())]).boxed();
        let packed: Vec<_> = FileCompressionType::GZIP.convert_to_compress_stream(bytes).unwrap().collect().await;
        let packed: Vec<u8> = packed.into_iter().flat_map(|part| part.unwrap().to_vec()).collect();
        fs::write(self.path(name), packed).unwrap();
    }

    /// Writes the rows of a query as a Parquet file.
    pub(super) async fn parquet(&self, name: &str, sql: &str) {
        let frame = SessionContext::new().sql(sql).await.unwrap();
        let path = self.path(name);
        frame
            .write_parquet(
                path.to_str().unwrap(),
                datafusion::dataframe::DataFrameWriteOptions::new().with_single_file_output(true),
                None,
            )
            .await
            .unwrap();
    }

    pub(super) fn governance(&self) -> PublicKey {
        self.key.public()
    }

    pub(super) fn load(&self) -> Result<Mapping, MappingError> {
        Mapping::load(&self.path("mapping.toml"), &[self.governance()])
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.path("snapshots")
    }

    pub(super) async fn take(&self, row_group_rows: usize) -> Result<(Snapshot, Vec<String>), SnapshotError> {
        let report = Mutex::new(Vec::new());
        let note = |progress: Progress<'_>| {
            if let Progress::Finished(done) = progress {
                let lost: Vec<_> = done.became_null.iter().map(|(c, n)| format!("{c}={n}")).collect();
                let line = format!(
                    "{}: {} rows, {} without patient, {}{}",
                    done.table,
                    done.rows,
                    done.without_patient,
                    lost.join(" "),
                    if done.taken_over { ", taken over" } else { "" }
                );
                report.lock().unwrap().push(line);
            }
        };
        let snapshot = self.take_with(&self.snapshots(), row_group_rows, &note, &Hooks::default()).await?;
        Ok((snapshot, report.into_inner().unwrap()))
    }

    /// Takes a snapshot into another folder than usual, or watched.
    pub(super) async fn take_with(
        &self,
        snapshots: &Path,
        row_group_rows: usize,
        progress: &(dyn Fn(Progress<'_>) + Sync),
        hooks: &Hooks,
    ) -> Result<Snapshot, SnapshotError> {
        let settings = Settings { memory_bytes: 64 << 20, row_group_rows };
        let now: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        snapshot::take(&self.load().unwrap(), snapshots, &settings, progress, hooks, now).await
    }

    /// Takes a snapshot on a day of March.
    pub(super) async fn take_on(&self, day: u32) -> Result<Snapshot, SnapshotError> {
        let settings = Settings { memory_bytes: 64 << 20, row_group_rows: 2 };
        let now: DateTime<Utc> = format!("2026-03-{day:02}T00:00:00Z").parse().unwrap();
        snapshot::take(&self.load().unwrap(), &self.snapshots(), &settings, &|_| {}, &Hooks::default(), now).await
    }
}

/// A session over `snapshot` in which these patients are not eligible.
pub(super) fn session(snapshot: &Snapshot, partitions: usize, opted_out: &[&str]) -> SessionContext {
    let context = protected::session(1 << 28, partitions).unwrap();
    let eligible: Arc<dyn Eligible> = Arc::new(AllBut(opted_out.iter().map(|id| (*id).to_owned()).collect()));
    protected::register_all(&context, snapshot, &eligible).unwrap();
    context
}

/// The rows of a query, a line each, fields separated by a bar.
pub(super) async fn rows(context: &SessionContext, sql: &str) -> Vec<String> {
    lines(&context.sql(sql).await.unwrap().collect().await.unwrap())
}

pub(super) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let fields = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|");
    table.lines().filter(|line| line.starts_with('|')).skip(1).map(fields).collect()
}

/// The number of files below a directory whose names begin so.
pub(super) fn count_files(directory: &Path, prefix: &str) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(prefix)).count()
}
