//! A Parquet file of a snapshot, and scans of it: of all rows, or of the row groups where a range of patients may be.

use std::{fmt, fs::File, path::Path, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{Result, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
    },
    object_store::{ObjectMeta, path::Path as ObjectPath},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use sekisho_protocol::schema::Table;

use super::{
    columns::arrow_schema,
    patient_range::{PatientId, PatientRange, Span},
    protected::TableError,
};

/// A Parquet file of a snapshot and where its row groups begin.
pub(super) struct TableFile {
    pub(super) meta: ObjectMeta,
    pub(super) schema: SchemaRef,
    groups: Vec<Group>,
    /// The index of the patient column, by which it is sorted; none in a public table.
    pub(super) sorted_by: Option<usize>,
}

struct Group {
    /// The offset in bytes of its first page.
    start: i64,
    rows: u64,
    span: Span,
}

impl TableFile {
    pub(super) fn open(path: &Path, table: &Table) -> Result<Self, TableError> {
        let unreadable = |error: &dyn fmt::Display| TableError::Unreadable {
            table: table.name.clone(),
            path: path.into(),
            reason: error.to_string(),
        };
        let path = path.canonicalize().map_err(|e| unreadable(&e))?;
        let file = File::open(&path).map_err(|e| unreadable(&e))?;
        let metadata = file.metadata().map_err(|e| unreadable(&e))?;
        let meta = ObjectMeta {
            location: ObjectPath::from_absolute_path(&path).map_err(|e| unreadable(&e))?,
            last_modified: metadata.modified().map_err(|e| unreadable(&e))?.into(),
            size: metadata.len(),
            e_tag: None,
            version: None,
        };
        let footer = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|e| unreadable(&e))?;
        let schema = arrow_schema(table);
        let sorted_by = table.patient.as_ref().and_then(|patient| schema.index_of(patient).ok());
        let group = |group: &RowGroupMetaData| {
            let first = group.columns().first()?;
            let span = sorted_by.and_then(|at| group.columns().get(at)?.statistics()).map(Span::of);
            Some(Group {
                // A scan of a byte range reads the row groups whose first page lies in it.
                start: first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset()),
                rows: group.num_rows().cast_unsigned(),
                span: span.unwrap_or_default(),
            })
        };
        let groups = footer.row_groups().iter().filter_map(group).collect();
        Ok(Self { meta, schema, groups, sorted_by })
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> u64 {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// Ids, ascending and different, at which the patients can be cut into at most `parts` ranges of about as many row groups.
    pub(super) fn cuts(&self, parts: u64) -> Vec<PatientId> {
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).min(self.groups.len());
        let first = (1..parts).map(|part| part * self.groups.len() / parts);
        let mut cuts: Vec<_> = first.filter_map(|group| self.groups[group].span.lowest.clone()).collect();
        // Cut texts may be equal.
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// A scan of `columns` of the row groups in which patients of `range` may be, in the file's order and in one partition;
    /// and how many rows that reads.
    pub(super) fn scan(&self, columns: Vec<usize>, range: &PatientRange) -> Result<(Arc<dyn ExecutionPlan>, u64)> {
        let meets = |group: &Group| range.meets(&group.span);
        let first = self.groups.iter().position(meets);
        let Some((first, last)) = first.zip(self.groups.iter().rposition(meets)) else {
            return Ok((Arc::new(EmptyExec::new(Arc::new(self.schema.project(&columns)?))), 0));
        };
        let (groups, rest) = self.groups[first..].split_at(last + 1 - first);
        // The first row group belongs to the first range, wherever it begins.
        let start = if first == 0 { 0 } else { groups[0].start };
        let end = rest.first().map_or(self.meta.size.cast_signed(), |next| next.start);
        let rows = groups.iter().map(|group| group.rows).sum();
        let file = PartitionedFile::new_from_meta(self.meta.clone()).with_range(start, end);
        let ordering = self.sorted_by.and_then(|at| {
            let column = Column::new(self.schema.field(at).name(), at);
            LexOrdering::new([PhysicalSortExpr::new_default(Arc::new(column))])
        });
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(vec![FileGroup::new(vec![file])])
            .with_projection_indices(Some(columns))?
            .with_statistics(about(&self.schema, rows))
            .with_output_ordering(ordering.into_iter().collect())
            .with_preserve_order(true)
            .build();
        Ok((DataSourceExec::from_data_source(config), rows))
    }
}

/// Statistics from which a side of a join can be chosen, and no count be answered.
pub(super) fn about(schema: &SchemaRef, rows: u64) -> Statistics {
    let rows = Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX));
    Statistics { num_rows: rows, ..Statistics::new_unknown(schema) }
}
