//! Fills statements with a source's words.
//!
//! In a statement, `{p}` is the name of the table with one row a patient, `{e}` and `{o}` are two different tables of
//! events, `{c}` is the public one, `{pid}` the patient column; `{e.filter}` is one of that table's filters, under the alias
//! `e`; `{e.bounded}` is a column with bounds; `{e.agg}` and `{e.agg2}` are aggregates. Every place is drawn anew, except that places with the same `#label` are equal.
//! A statement that needs a word which the drawn tables do not have is passed over.

use std::collections::{BTreeSet, HashMap};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sekisho_protocol::schema::{Column, Kind};

use super::source::{FOLDER, Prepared, Source};

/// Aggregates over a table of alias `X`; `1` ends their names.
const AGGREGATES: &[&str] = &[
    "sum({X.number}) AS s1",
    "avg({X.number}) AS a1",
    "count(DISTINCT X.{pid}) AS d1",
    "count({X.number}) AS v1",
    "count(*) FILTER (WHERE {X.filter}) AS f1",
    "count(DISTINCT X.{pid}) FILTER (WHERE {X.filter}) AS g1",
    "sum({X.number}) FILTER (WHERE {X.filter}) AS h1",
    "avg({X.number}) FILTER (WHERE {X.filter}) AS b1",
    "sum(CASE WHEN {X.filter} THEN 1 ELSE 0 END) AS c1",
    "count(CASE WHEN {X.filter} THEN 1 END) AS w1",
    "avg(CASE WHEN {X.filter} THEN 1 ELSE 0 END) AS r1",
];

/// A statement with places, and how many queries are made of it for each source.
struct Statement {
    text: String,
    draws: usize,
}

fn statements(file: &str) -> Vec<Statement> {
    let text = std::fs::read_to_string(format!("{FOLDER}/queries/{file}.sql")).unwrap();
    let (mut all, mut draws, mut sql) = (Vec::new(), 1, String::new());
    for line in text.lines() {
        if let Some(n) = line.strip_prefix("-- draws ") {
            draws = n.parse().unwrap();
        } else if !line.starts_with("--") {
            sql += line.trim();
            if let Some(whole) = sql.strip_suffix(';') {
                all.push(Statement { text: whole.to_string(), draws });
                sql.clear();
            }
        }
    }
    assert!(sql.is_empty(), "{file}: no ; at the end");
    all
}

/// The queries of `source`, each once, the same in every run.
pub fn queries(source: &Source, files: &[&str]) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(3);
    let mut all = BTreeSet::new();
    let mut ordered = Vec::new();
    for statement in files.iter().flat_map(|file| statements(file)) {
        let mut left = statement.draws;
        for _ in 0..40 {
            let sql = Draw::new(source, &mut rng).fill(&statement.text);
            let fresh = sql.filter(|sql| left > 0 && all.insert(sql.clone()));
            left -= usize::from(fresh.is_some());
            ordered.extend(fresh);
        }
    }
    ordered
}

/// A column that can be summed as it is.
pub fn is_bounded_number(column: &Column) -> bool {
    column.bounds.is_some() && matches!(column.kind, Kind::Int64 | Kind::Decimal)
}

/// One query in the making.
pub struct Draw<'a> {
    source: &'a Source,
    rng: &'a mut StdRng,
    tables: HashMap<char, &'a Prepared>,
    used: BTreeSet<String>,
    labelled: HashMap<String, String>,
}

impl<'a> Draw<'a> {
    pub fn new(source: &'a Source, rng: &'a mut StdRng) -> Self {
        let people = source.tables.iter().find(|t| t.schema.one_row_per_patient).unwrap();
        let public = source.tables.iter().find(|t| t.schema.public.is_some()).unwrap();
        let events: Vec<&Prepared> =
            source.tables.iter().filter(|t| t.schema.public.is_none() && t.schema.name != people.schema.name).collect();
        let e = rng.random_range(0..events.len());
        let o = (e + rng.random_range(1..events.len())) % events.len();
        let tables = HashMap::from([('p', people), ('c', public), ('e', events[e]), ('o', events[o])]);
        Self { source, rng, tables, used: BTreeSet::new(), labelled: HashMap::new() }
    }

    pub fn fill(&mut self, text: &str) -> Option<String> {
        let mut text = text.to_string();
        while let Some(start) = text.find('{') {
            let end = start + text[start..].find('}')?;
            let word = self.word(&text[start + 1..end])?;
            text.replace_range(start..=end, &word);
        }
        Some(text)
    }

    fn word(&mut self, place: &str) -> Option<String> {
        if place == "pid" {
            return Some(self.source.patient.clone());
        }
        if let Some(word) = self.labelled.get(place) {
            return Some(word.clone());
        }
        let alias = place.chars().next()?;
        let table = self.tables[&alias];
        let Some((_, kind)) = place.split_once('.') else { return Some(table.schema.name.clone()) };
        let kind = kind.split('#').next()?;
        let word = match kind {
            "agg" => AGGREGATES.choose(self.rng)?.replace('X', &alias.to_string()),
            "agg2" => AGGREGATES
                .choose(self.rng)?
                .replace('X', &alias.to_string())
                .replace("1", "2")
                .replace("THEN 2", "THEN 1"),
            _ => {
                let bounded;
                let words: &Vec<String> = if kind == "bounded" {
                    bounded = table
                        .schema
                        .columns
                        .iter()
                        .filter(|c| is_bounded_number(c))
                        .map(|c| format!("@{}", c.name))
                        .collect();
                    &bounded
                } else {
                    table.words.get(kind)?
                };
                let fresh: Vec<&String> =
                    words.iter().filter(|w| !self.used.contains(&format!("{alias}{kind}{w}"))).collect();
                // Two keys of one query are different; other words may come again.
                let all: Vec<&String> = words.iter().filter(|_| kind != "key").collect();
                let word = (*fresh.choose(self.rng).or(all.choose(self.rng))?).clone();
                self.used.insert(format!("{alias}{kind}{word}"));
                word.replace('@', &format!("{alias}."))
            }
        };
        if place.contains('#') {
            self.labelled.insert(place.to_string(), word.clone());
        }
        Some(word)
    }
}
