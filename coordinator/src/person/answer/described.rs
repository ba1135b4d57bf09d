//! A result as other programs read it: typed columns, and in the schema's metadata what they are.
//!
//! The schema carries the report under [`RESULT_KEY`]. A column that is an aggregate names its interval's columns and its
//! noise, as far as the report tells which measures it is made of. Whatever else the coordinator wrote into the schema is
//! left out.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::BooleanArray,
    compute::filter_record_batch,
    datatypes::{Field, Schema},
    error::ArrowError,
    record_batch::RecordBatch,
};
use serde_json::json;

use super::Rows;
use crate::{
    person::failure::Failure,
    report::{
        COLUMN_CONFIDENCE_KEY, HIGH_KEY, HolderState, LOW_KEY, MEASURE_KEY, NOISE_KEY, NOISE_SD_ALL_KEY, NOISE_SD_KEY,
        NoiseReport, RESULT_KEY, ResultReport,
    },
};

impl Rows {
    /// The combined table, or with `by_holder` every hospital's rows, with `report` in its schema.
    ///
    /// # Errors
    /// When the answer's columns do not fit each other.
    pub fn described(&self, by_holder: bool, report: &ResultReport) -> Result<RecordBatch, Failure> {
        let wrong = |e: ArrowError| Failure::answer("result", e);
        let text = serde_json::to_string(report).map_err(|e| Failure::answer("report", e))?;
        let fields = self.batch.schema_ref().fields().iter().enumerate();
        let fields: Vec<Field> = fields
            .map(|(index, field)| {
                let plain = Field::new(field.name(), field.data_type().clone(), true);
                if self.is_bounded(index) { plain.with_metadata(described(field.name(), report)) } else { plain }
            })
            .collect();
        let schema = Schema::new_with_metadata(fields, HashMap::from([(RESULT_KEY.to_string(), text)]));
        let table = RecordBatch::try_new(Arc::new(schema), self.batch.columns().to_vec()).map_err(wrong)?;
        let mut wanted = vec![false; table.num_rows()];
        for row in self.chosen(by_holder) {
            wanted[row] = true;
        }
        filter_record_batch(&table, &BooleanArray::from(wanted)).map_err(wrong)
    }
}

/// What is known of the aggregate `name`.
fn described(name: &str, report: &ResultReport) -> HashMap<String, String> {
    let mut facts = vec![
        (LOW_KEY, format!("{name}_low")),
        (HIGH_KEY, format!("{name}_high")),
        (COLUMN_CONFIDENCE_KEY, report.confidence.to_string()),
    ];
    let has = |columns: &[String]| columns.iter().any(|column| column == name);
    let noise: Vec<&NoiseReport> = report.privacy.noise.iter().filter(|noise| has(&noise.columns)).collect();
    if !noise.is_empty() {
        let list: Vec<_> = noise
            .iter()
            .map(|noise| json!({"measure": noise.measure, "standard_deviation": noise.standard_deviation}))
            .collect();
        facts.push((NOISE_KEY, json!(list).to_string()));
    }
    if let Some(itself) = noise.iter().find(|noise| has(&noise.direct)) {
        facts.push((MEASURE_KEY, itself.measure.clone()));
        facts.push((NOISE_SD_KEY, itself.standard_deviation.to_string()));
        // Each hospital adds the same noise, independently.
        let hospitals = report.holders.iter().filter(|holder| holder.state == HolderState::Answered).count();
        let hospitals = u32::try_from(hospitals).unwrap_or(u32::MAX);
        facts.push((NOISE_SD_ALL_KEY, (itself.standard_deviation * f64::from(hospitals).sqrt()).to_string()));
    }
    facts.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::{datatypes::DataType, ipc::reader::StreamReader};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::{super::tests::rows, *};
    use crate::person::format;

    fn report() -> ResultReport {
        let zeros = "0".repeat(64);
        serde_json::from_value(json!({
            "round": "r1", "permit": zeros, "query": zeros, "run": 1, "at": "2026-12-01T00:00:00Z", "complete": true,
            "confidence": 0.9, "preset": "none", "synthetic": false, "method": "weighted means",
            "privacy": {"micro_rho": 10, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
                "epsilon_all_sites": 0.1, "noise": [
                    {"measure": "rows", "standard_deviation": 7.5, "counts": true, "columns": ["n"], "direct": ["n"]},
                    {"measure": "sum", "standard_deviation": 80.0, "columns": ["mean"]},
                    {"measure": "present", "standard_deviation": 2.5, "counts": true, "columns": ["mean", "other"],
                        "direct": ["other"]}]},
            "holders": [{"name": "tokyo", "state": "answered"}, {"name": "osaka", "state": "offline"},
                {"name": "kyoto", "state": "answered"}, {"name": "nara", "state": "answered"},
                {"name": "kobe", "state": "answered"}],
        }))
        .unwrap()
    }

    fn get<'a>(schema: &'a Schema, column: &str, key: &str) -> Option<&'a str> {
        schema.field_with_name(column).unwrap().metadata().get(key).map(String::as_str)
    }

    #[test]
    fn columns_say_what_their_noise_and_their_intervals_are() {
        let table = rows().described(false, &report()).unwrap();
        let schema = table.schema();
        for (column, key, value) in [
            ("n", LOW_KEY, Some("n_low")),
            ("n", HIGH_KEY, Some("n_high")),
            ("n", COLUMN_CONFIDENCE_KEY, Some("0.9")),
            ("n", MEASURE_KEY, Some("rows")),
            ("n", NOISE_SD_KEY, Some("7.5")),
            ("n", NOISE_SD_ALL_KEY, Some("15")),
            ("n", NOISE_KEY, Some(r#"[{"measure":"rows","standard_deviation":7.5}]"#)),
            ("mean", LOW_KEY, Some("mean_low")),
            ("mean", NOISE_SD_KEY, None),
            ("mean", MEASURE_KEY, None),
            (
                "mean",
                NOISE_KEY,
                Some(r#"[{"measure":"sum","standard_deviation":80.0},{"measure":"present","standard_deviation":2.5}]"#),
            ),
            ("n_low", LOW_KEY, None),
            ("病棟", COLUMN_CONFIDENCE_KEY, None),
        ] {
            assert_eq!(get(&schema, column, key), value, "{column} {key}");
        }
        let back: ResultReport = serde_json::from_str(&schema.metadata()[RESULT_KEY]).unwrap();
        assert_eq!((back.round.as_str(), back.holders.len()), ("r1", 5));
    }

    #[test]
    fn a_column_that_is_computed_from_one_measure_does_not_have_its_noise() {
        let mut report = report();
        report.privacy.noise[0].direct.clear();
        let schema = rows().described(false, &report).unwrap().schema();
        assert!(get(&schema, "n", NOISE_KEY).is_some());
        assert_eq!((get(&schema, "n", NOISE_SD_KEY), get(&schema, "n", NOISE_SD_ALL_KEY)), (None, None));
    }

    #[test]
    fn without_a_mapping_no_noise_is_claimed() {
        let mut report = report();
        report.privacy.noise.iter_mut().for_each(|noise| noise.columns.clear());
        let schema = rows().described(false, &report).unwrap().schema();
        assert_eq!(get(&schema, "n", NOISE_KEY), None);
        assert_eq!(get(&schema, "n", LOW_KEY), Some("n_low"));
    }

    #[test]
    fn arrow_and_parquet_bring_back_types_values_and_metadata() {
        for by_holder in [false, true] {
            let table = rows().described(by_holder, &report()).unwrap();
            assert_eq!(table.num_rows(), if by_holder { 4 } else { 3 });
            assert_eq!(table.schema().field(2).data_type(), &DataType::Int64);
            let stream = format::arrow(&table).unwrap();
            let mut stream = StreamReader::try_new(stream.as_slice(), None).unwrap();
            assert_eq!(stream.next().unwrap().unwrap(), table);
            assert!(stream.next().is_none());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&format::parquet(&table).unwrap()).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let key_value = reader.metadata().file_metadata().key_value_metadata().unwrap();
            assert!(key_value.iter().any(|entry| entry.key == RESULT_KEY), "for readers without Arrow");
            let back = reader.build().unwrap().next().unwrap().unwrap();
            assert_eq!(back.columns(), table.columns());
            for field in table.schema().fields() {
                for (key, value) in field.metadata() {
                    assert_eq!(get(&back.schema(), field.name(), key), Some(value.as_str()), "{}", field.name());
                }
            }
        }
    }
}
