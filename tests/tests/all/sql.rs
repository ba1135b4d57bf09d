//! What is admitted and what is refused, topic by topic: `tests/sql/*.slt`, and every example in `docs/sql.md`.
//!
//! A record of a `.slt` file is a line `admitted` or `refused CODE`, the SQL, `----`, and what the plan releases or words
//! that the refusal must have. In the manual, a block of
//! SQL says ```` ```sql admitted ```` or ```` ```sql refused CODE: words ````. With `SEKISHO_BLESS` set, the files are written anew where
//! what follows `----` has changed; an admission that became a refusal, or the other way round, always fails.

use std::path::Path;

use sekisho_aggregation::release::kind;
use sekisho_tests::fuzzed::world::world;

use crate::library::{Library, session};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What is said of one statement: a line `admitted` or `refused CODE`, and the rest.
struct Record {
    head: String,
    sql: String,
    rest: String,
}

fn library() -> Library {
    Library { schema: world().schema.clone(), permit: world().permit.clone(), tables: session() }
}

/// What becomes of a statement, as a record says it.
fn outcome(library: &Library, sql: &str) -> (String, String) {
    match library.analyse(sql) {
        Ok(plan) => {
            let measures: Vec<&str> = plan.parts().iter().flat_map(|p| p.measures()).map(kind).collect();
            ("admitted".into(), format!("{} cells of {}", plan.cells(), measures.join(", ")))
        }
        Err(refusal) => (format!("refused {}", refusal.code.as_str()), refusal.detail),
    }
}

fn check(library: &Library, record: &Record) -> Result<String, String> {
    let (head, said) = outcome(library, &record.sql);
    if head != record.head {
        return Err(format!("{}\n  is {head}, not {}: {said}", record.sql, record.head));
    }
    let fits =
        if head == "admitted" { said == record.rest } else { said.contains(&record.rest) && !record.rest.is_empty() };
    if fits { Ok(said) } else { Err(format!("{}\n  {head}: {said}\n  and not: {}", record.sql, record.rest)) }
}

fn records(text: &str) -> Vec<Record> {
    let mut all = Vec::new();
    for block in text.split("\n\n") {
        let lines: Vec<&str> = block.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).collect();
        let Some((head, lines)) = lines.split_first() else { continue };
        let end = lines.iter().position(|l| *l == "----").unwrap_or(lines.len());
        let rest = lines.get(end + 1..).unwrap_or_default().join("\n");
        all.push(Record { head: (*head).into(), sql: lines[..end].join("\n"), rest });
    }
    all
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge of the tests: a developer asks for the files to be written anew"
)]
fn bless() -> bool {
    std::env::var_os("SEKISHO_BLESS").is_some()
}

fn blessed(library: &Library, text: &str) -> String {
    let block = |block: &str| {
        let [record] =
            records(block).try_into().unwrap_or_else(|_| panic!("two records without a line between: {block}"));
        let (head, said) = outcome(library, &record.sql);
        let fits = check(library, &record).is_ok() || head != record.head;
        let written = block.split("\n----").next().unwrap_or_default().trim_end();
        if fits { block.trim_end().to_string() } else { format!("{written}\n----\n{said}") }
    };
    let blocks = text.split("\n\n").map(|b| if records(b).is_empty() { b.trim_end().to_string() } else { block(b) });
    blocks.collect::<Vec<_>>().join("\n\n") + "\n"
}

#[test]
fn what_is_admitted_and_refused_topic_by_topic() {
    let library = library();
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut files: Vec<_> = std::fs::read_dir(format!("{ROOT}/sql")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "slt")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut text = std::fs::read_to_string(file).unwrap();
        if bless() {
            text = blessed(&library, &text);
            std::fs::write(file, &text).unwrap();
        }
        for record in records(&text) {
            count += 1;
            wrong.extend(check(&library, &record).err().map(|e| format!("{name}: {e}")));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 150, "only {count} records");
}

/// The blocks of SQL in a page, each as a record.
fn examples(page: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut all = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(says) = line.strip_prefix("```sql") else { continue };
        let sql: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
        let (head, rest) = says.trim().split_once(": ").unwrap_or((says.trim(), ""));
        all.push(Record { head: head.into(), sql: sql.join("\n"), rest: rest.into() });
    }
    all
}

#[test]
fn every_example_of_the_manual_behaves_as_it_says() {
    let library = library();
    let examples = examples(&Path::new(ROOT).join("../docs/sql.md"));
    for record in &examples {
        let (head, said) = outcome(&library, &record.sql);
        assert_eq!(head, record.head, "{}\n{said}", record.sql);
        assert!(head == "admitted" || said.contains(&record.rest), "{}\n{said}", record.sql);
    }
    assert!(examples.len() > 40, "only {} examples", examples.len());
}
