//! SQL by grammar, from bytes: most of it is admitted, or refused for something in the middle of it.
//!
//! Every relation is a subquery with column names of its own. Where the manual demands the patient, the grammar now and then writes
//! something else: whatever is admitted all the same must keep what `walk.rs` asks of it. Bytes that have run out choose the first
//! and simplest of everything. Expressions are in `phrases.rs`.

use arbitrary::{Result, Unstructured};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Int,
    Decimal,
    Text,
    Date,
    Bool,
}

use Holds::{Bool, Date, Decimal, Int, Text};

/// What can stand after FROM.
#[derive(Clone)]
pub struct Source {
    pub sql: String,
    pub columns: Vec<(String, Holds)>,
    pub patient: Option<String>,
}

type Columns = &'static [(&'static str, Holds)];

const TABLES: [(&str, Columns); 4] = [
    (
        "visit",
        &[("days", Int), ("kind", Text), ("admitted", Date), ("discharged", Date), ("icd10", Text), ("cost", Int)],
    ),
    ("person", &[("sex", Text), ("birth_year", Int), ("region", Text), ("smoker", Bool), ("died", Date)]),
    ("measurement", &[("value", Decimal), ("loinc", Text), ("taken", Date)]),
    ("drug", &[("days", Int), ("atc", Text), ("started", Date)]),
];
const FRAMES: [&str; 5] = [
    "",
    " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
];

/// What chooses, and what was named so far.
pub struct Writer<'a, 'b> {
    pub bytes: &'a mut Unstructured<'b>,
    names: usize,
    views: Vec<Source>,
}

/// A statement.
///
/// # Errors
/// None: bytes that have run out make choices too.
pub fn statement(bytes: &mut Unstructured<'_>) -> Result<String> {
    let mut writer = Writer { bytes, names: 0, views: Vec::new() };
    let mut with = Vec::new();
    for _ in 0..writer.bytes.int_in_range(0..=2)? {
        let inner = writer.relation(2)?;
        let name = writer.name("v");
        with.push(format!("{name} AS (SELECT * FROM {})", inner.sql));
        // Names inside the view are those of its columns.
        let bare = |column: &str| column.rsplit('.').next().unwrap_or_default().to_string();
        let columns = inner.columns.iter().map(|(column, holds)| (bare(column), *holds)).collect();
        writer.views.push(Source { sql: name, columns, patient: inner.patient.as_deref().map(bare) });
    }
    let body = writer.released(2)?;
    Ok(if with.is_empty() { body } else { format!("WITH {} {body}", with.join(", ")) })
}

impl Writer<'_, '_> {
    fn name(&mut self, stem: &str) -> String {
        self.names += 1;
        format!("{stem}{}", self.names)
    }

    /// True once in `n` times; never when the bytes have run out.
    pub fn once_in(&mut self, n: u8) -> Result<bool> {
        Ok(self.bytes.int_in_range(0..=n - 1)? == n - 1)
    }

    /// One of these.
    pub fn of<'c>(&mut self, list: &[&'c str]) -> Result<&'c str> {
        Ok(*self.bytes.choose(list)?)
    }

    /// Released cells, and what may be computed with them.
    fn released(&mut self, depth: usize) -> Result<String> {
        let choice = if depth == 0 { 0 } else { self.bytes.int_in_range(0..=7)? };
        Ok(match choice {
            4 => {
                let inner = self.released(depth - 1)?;
                let (function, order) =
                    (self.of(&["sum", "max", "avg", "count"])?, self.of(&["", " ORDER BY 1 LIMIT 3"])?);
                format!("SELECT {function}(m) AS m FROM ({inner}) r{order}")
            }
            5 => {
                let (left, right) = (self.released(depth - 1)?, self.released(depth - 1)?);
                let kind = self.of(&["JOIN", "LEFT JOIN", "FULL JOIN", "CROSS JOIN"])?;
                let on = if kind == "CROSS JOIN" { "" } else { " ON a.k = b.k" };
                format!("SELECT a.k, a.m - b.m AS m FROM ({left}) a {kind} ({right}) b{on}")
            }
            6 => format!("{} UNION ALL {}", self.across()?, self.across()?),
            7 => format!("SELECT k, m, rank() OVER (ORDER BY m) AS r FROM ({}) r", self.released(depth - 1)?),
            _ => self.across()?,
        })
    }

    /// One aggregate across patients, with columns `k` and `m` among others.
    fn across(&mut self) -> Result<String> {
        let source = self.relation(3)?;
        let mut keys = Vec::new();
        for _ in 0..self.bytes.int_in_range(0..=3)? {
            keys.push(self.key(&source)?);
        }
        let mut list: Vec<String> = keys.iter().enumerate().map(|(i, k)| format!("{k} AS k{}", suffix(i))).collect();
        for i in 0..=self.bytes.int_in_range(0..=3)? {
            list.push(format!("{} AS m{}", self.aggregate(&source)?, suffix(i)));
        }
        let mut sql = format!("SELECT {} FROM {}", list.join(", "), source.sql);
        if self.once_in(2)? {
            sql += &format!(" WHERE {}", self.condition(&source, 2)?);
        }
        if !keys.is_empty() {
            let keys = keys.join(", ");
            sql += &match self.bytes.int_in_range(0..=7)? {
                5 => format!(" GROUP BY ROLLUP ({keys})"),
                6 => format!(" GROUP BY CUBE ({keys})"),
                7 => format!(" GROUP BY GROUPING SETS (({keys}), ())"),
                _ => format!(" GROUP BY {keys}"),
            };
        }
        sql += self.of(&["", "", " HAVING count(*) > 10", " ORDER BY m DESC", " LIMIT 5"])?;
        Ok(sql)
    }

    fn key(&mut self, source: &Source) -> Result<String> {
        let holds = *self.bytes.choose(&[Text, Int, Bool, Date])?;
        let inner = self.expression(source, holds, 1)?;
        Ok(match (holds, self.bytes.int_in_range(0..=3)?) {
            (Int, 1) => format!("{inner} / 10"),
            (Int, 2) => format!("CASE WHEN {inner} < 18 THEN 'child' WHEN {inner} < 65 THEN 'adult' ELSE 'older' END"),
            (Date, 1..) => format!("date_part('month', {inner})"),
            (Text, 3) => format!("substr({inner}, 1, 1)"),
            _ => inner,
        })
    }

    fn aggregate(&mut self, source: &Source) -> Result<String> {
        let patient = source.patient.clone().unwrap_or_else(|| "patient_id".into());
        let number = if self.once_in(4)? { Decimal } else { Int };
        let x = self.expression(source, number, 2)?;
        let whole = match self.bytes.int_in_range(0..=12)? {
            1 => format!("count(DISTINCT {patient})"),
            2 => format!("sum({x})"),
            3 => format!("avg({x})"),
            4 => format!("count({x})"),
            5 => format!("var_samp({x})"),
            6 => format!("corr({x}, {})", self.expression(source, Int, 1)?),
            7 => format!("percentile_cont(0.25) WITHIN GROUP (ORDER BY {x})"),
            8 => format!("median({x})"),
            9 => format!("max({x})"),
            10 => format!("count(DISTINCT {})", self.expression(source, Text, 1)?),
            11 => format!("sum(DISTINCT {x})"),
            12 => format!("covar_pop({x}, {x})"),
            _ => "count(*)".into(),
        };
        if self.once_in(5)? {
            return Ok(format!("{whole} FILTER (WHERE {})", self.condition(source, 1)?));
        }
        Ok(whole)
    }

    /// A relation under the aggregate.
    fn relation(&mut self, depth: usize) -> Result<Source> {
        let choice = if depth == 0 { self.bytes.int_in_range(0..=1)? } else { self.bytes.int_in_range(0..=10)? };
        match choice {
            1 if !self.views.is_empty() => {
                let views = self.views.clone();
                let view = self.bytes.choose(&views)?.clone();
                Ok(self.aliased(&view.sql, &view))
            }
            2 | 3 => self.selected(depth),
            4 => self.per_patient(depth),
            5 => self.windowed(depth),
            6 | 7 => self.joined(depth),
            8 => self.united(depth),
            9 => self.with_public(depth),
            10 => self.looked_up(depth),
            _ => {
                let (name, columns) = *self.bytes.choose(&TABLES)?;
                let columns = columns.iter().map(|(column, holds)| ((*column).to_string(), *holds)).collect();
                let table = Source { sql: name.into(), columns, patient: Some("patient_id".into()) };
                Ok(self.aliased(name, &table))
            }
        }
    }

    /// `sql` under a new name; its columns are those of `inner`.
    fn aliased(&mut self, sql: &str, inner: &Source) -> Source {
        let name = self.name("t");
        let columns = inner.columns.iter().map(|(column, holds)| (format!("{name}.{column}"), *holds)).collect();
        let patient = inner.patient.as_ref().map(|p| format!("{name}.{p}"));
        Source { sql: format!("{sql} {name}"), columns, patient }
    }

    /// A subquery of these expressions, the patient first, unless it is left out.
    fn subquery(&mut self, patient: Option<String>, list: Vec<(String, Holds)>, rest: &str) -> Source {
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        let named = patient.map(|p| {
            let name = self.name("p");
            items.push(format!("{p} AS {name}"));
            name
        });
        for (expression, holds) in list {
            let name = self.name("c");
            items.push(format!("{expression} AS {name}"));
            columns.push((name, holds));
        }
        if items.is_empty() {
            items.push("1 AS one".into());
        }
        let inner = Source { sql: String::new(), columns, patient: named };
        self.aliased(&format!("(SELECT {} {rest})", items.join(", ")), &inner)
    }

    /// The patient as the manual demands it, or seldom something like it.
    fn patient(&mut self, source: &Source) -> Result<Option<String>> {
        let Some(patient) = source.patient.clone() else { return Ok(None) };
        Ok(match self.bytes.int_in_range(0..=23)? {
            19 => None,
            20 => Some(format!("{patient} + 0")),
            21 => Some(format!("coalesce({patient}, 1)")),
            22 => Some(format!("CASE WHEN true THEN {patient} END")),
            23 => Some(self.expression(source, Int, 1)?),
            _ => Some(patient),
        })
    }

    fn some_columns(&mut self, source: &Source) -> Result<Vec<(String, Holds)>> {
        let mut list = Vec::new();
        for (column, holds) in &source.columns {
            if !self.once_in(3)? {
                list.push((column.clone(), *holds));
            }
        }
        if self.once_in(2)? {
            let holds = *self.bytes.choose(&[Int, Text, Date, Bool, Decimal])?;
            list.push((self.expression(source, holds, 2)?, holds));
        }
        Ok(list)
    }

    fn selected(&mut self, depth: usize) -> Result<Source> {
        let source = self.relation(depth - 1)?;
        let (patient, list) = (self.patient(&source)?, self.some_columns(&source)?);
        let mut rest = format!("FROM {}", source.sql);
        if self.once_in(2)? {
            rest += &format!(" WHERE {}", self.condition(&source, 2)?);
        }
        let mut made = self.subquery(patient, list, &rest);
        if self.once_in(5)? {
            made.sql = made.sql.replacen("(SELECT ", "(SELECT DISTINCT ", 1);
        }
        Ok(made)
    }

    fn per_patient(&mut self, depth: usize) -> Result<Source> {
        let source = self.relation(depth - 1)?;
        let patient = self.patient(&source)?;
        let mut groups: Vec<String> = patient.iter().cloned().collect();
        let mut list = Vec::new();
        if self.once_in(3)? {
            let key = self.expression(&source, Text, 1)?;
            groups.push(key.clone());
            list.push((key, Text));
        }
        for _ in 0..=self.bytes.int_in_range(0..=2)? {
            let x = self.expression(&source, Int, 1)?;
            let function = self.of(&["count", "sum", "min", "max", "avg", "count(*) + sum"])?;
            list.push((format!("{function}({x})"), if function == "avg" { Decimal } else { Int }));
        }
        let mut rest = format!("FROM {}", source.sql);
        if !groups.is_empty() {
            rest += &format!(" GROUP BY {}", groups.join(", "));
        }
        rest += self.of(&["", "", " HAVING count(*) > 1"])?;
        Ok(self.subquery(patient, list, &rest))
    }

    fn windowed(&mut self, depth: usize) -> Result<Source> {
        let source = self.relation(depth - 1)?;
        let by = self.patient(&source)?;
        let mut list = self.some_columns(&source)?;
        let x = self.expression(&source, Int, 1)?;
        let function =
            self.of(&["row_number()", "rank()", "sum(X)", "lag(X)", "first_value(X)", "max(X)", "count(*)"])?;
        let mut parts: Vec<String> = by.into_iter().collect();
        if self.once_in(4)? {
            parts.push(self.expression(&source, Text, 1)?);
        }
        let partition = if parts.is_empty() { String::new() } else { format!("PARTITION BY {} ", parts.join(", ")) };
        let order = self.expression(&source, Date, 1)?;
        let frame = if function.contains('X') { self.of(&FRAMES)? } else { "" };
        let window = format!("{} OVER ({partition}ORDER BY {order}{frame})", function.replace('X', &x));
        list.push((window, Int));
        let rest = format!("FROM {}", source.sql);
        Ok(self.subquery(source.patient, list, &rest))
    }

    fn joined(&mut self, depth: usize) -> Result<Source> {
        let (left, right) = (self.relation(depth - 1)?, self.relation(depth - 1)?);
        let kind = self.of(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "NATURAL JOIN"])?;
        let mut list = self.some_columns(&left)?;
        list.extend(self.some_columns(&right)?);
        let mut on = String::new();
        if kind.ends_with(" JOIN") && !kind.starts_with(['C', 'N']) || kind == "JOIN" {
            let (a, b) = (
                self.patient(&left)?.unwrap_or_else(|| "1".into()),
                self.patient(&right)?.unwrap_or_else(|| "1".into()),
            );
            on = format!(" ON {a} {} {b}", self.of(&["=", "=", "=", "=", "IS NOT DISTINCT FROM", "<="])?);
            if self.once_in(3)? {
                let both = Source { sql: String::new(), columns: list.clone(), patient: left.patient.clone() };
                let word = self.of(&["AND", "AND", "OR"])?;
                on += &format!(" {word} {}", self.condition(&both, 1)?);
            }
        }
        let either = if self.once_in(3)? { right.patient } else { left.patient };
        Ok(self.subquery(either, list, &format!("FROM {} {kind} {}{on}", left.sql, right.sql)))
    }

    fn united(&mut self, depth: usize) -> Result<Source> {
        let mut sides = Vec::new();
        for _ in 0..2 {
            let source = self.relation(depth - 1)?;
            let x = self.expression(&source, Int, 1)?;
            let patient = self.patient(&source)?.unwrap_or_else(|| "1".into());
            sides.push(format!("SELECT {patient} AS p, {x} AS x FROM {}", source.sql));
        }
        let word = self.of(&["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT"])?;
        let inner = Source { sql: String::new(), columns: vec![("x".into(), Int)], patient: Some("p".into()) };
        Ok(self.aliased(&format!("({})", sides.join(&format!(" {word} "))), &inner))
    }

    fn with_public(&mut self, depth: usize) -> Result<Source> {
        let source = self.relation(depth - 1)?;
        let name = self.name("u");
        let public = self.of(&["icd_chapter", "(VALUES ('E', 'endocrine'), ('I', 'circulatory'))"])?;
        let columns = if public.starts_with('(') { "(letter, chapter)" } else { "" };
        let mut list = self.some_columns(&source)?;
        list.push((format!("{name}.chapter"), Text));
        let kind = self.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN"])?;
        let key = self.expression(&source, Text, 1)?;
        let rest = format!("FROM {} {kind} {public} {name}{columns} ON {key} = {name}.letter", source.sql);
        Ok(self.subquery(source.patient, list, &rest))
    }

    /// IN and EXISTS.
    fn looked_up(&mut self, depth: usize) -> Result<Source> {
        let (source, other) = (self.relation(depth - 1)?, self.relation(depth - 1)?);
        let patient = self.patient(&source)?.unwrap_or_else(|| "1".into());
        let own = self.patient(&other)?.unwrap_or_else(|| "1".into());
        let not = self.of(&["", "NOT "])?;
        let condition = match self.bytes.int_in_range(0..=3)? {
            0 => format!("{patient} {not}IN (SELECT {own} FROM {})", other.sql),
            1 => format!("{not}EXISTS (SELECT 1 FROM {} WHERE {own} = {patient})", other.sql),
            2 => format!("{} IN (SELECT letter FROM icd_chapter)", self.expression(&source, Text, 1)?),
            _ => format!("{} > (SELECT count(*) FROM {})", self.expression(&source, Int, 1)?, other.sql),
        };
        let list = self.some_columns(&source)?;
        Ok(self.subquery(source.patient, list, &format!("FROM {} WHERE {condition}", source.sql)))
    }
}

fn suffix(place: usize) -> String {
    if place == 0 { String::new() } else { place.to_string() }
}
