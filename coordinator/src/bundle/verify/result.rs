//! The published table: planned again from the text of the question, combined again from the releases, and compared; and who let
//! it out.

use std::collections::BTreeMap;

use sekisho_aggregation::{combine, plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    digest::Digest,
    dsse::Verified,
    output_review::{OutputReview, Standing, standing},
    permit::OutputReview as Rule,
    published::{HolderState, PublishedRelease},
    schema::Schema,
};

use super::{
    super::{layout, stated, stated::SOFTWARE},
    Checking,
    fault::{Fault, rule, same},
    hospital::{Chain, Hospital},
    link::Link,
    people::Granted,
};
use crate::{
    report::{HolderReport, ResultReport},
    result,
};

/// The files of a result.
const FILES: [&str; 5] =
    [layout::REPORT, layout::COMBINED_ARROW, layout::COMBINED_CSV, layout::BY_HOLDER_ARROW, layout::BY_HOLDER_CSV];

impl Checking<'_> {
    /// Plan and tables.
    pub(super) async fn result(
        &mut self,
        chain: &Chain<'_>,
        schema: Option<&Verified<Schema>>,
        hospitals: Option<&[Hospital]>,
    ) {
        if let Some(said) = chain.said {
            let signed = self.signed_files(said);
            self.settle(Link::Statement, "result", signed);
        }
        FILES.iter().for_each(|path| self.files.pass(path));
        let ready = chain.whole().and_then(|whole| Ok((whole, schema.ok_or(Link::Schema)?)));
        let ((granted, query, said), schema) = match ready {
            Ok(ready) => ready,
            Err(since) => {
                self.skip(Link::Plan, "", since);
                self.skip(Link::Result, "", since);
                return;
            }
        };
        let permit = granted.permit.document();
        let planned = PrivatePlan::analyse_with(&query.sql, schema, permit, query.micro_rho, &query.terms);
        let planned = planned.map_err(Fault::from).and_then(|plan| agreed(plan, hospitals.unwrap_or_default()));
        let Some(plan) = self.settle(Link::Plan, "", planned) else {
            self.skip(Link::Result, "", Link::Plan);
            return;
        };
        let Some(hospitals) = hospitals else {
            self.skip(Link::Result, "", Link::Release);
            return;
        };
        let made = self.made_again(&plan, granted, said, hospitals).await;
        self.settle(Link::Result, "", made);
    }

    /// The bytes of the result's files are those that the coordinator signed.
    fn signed_files(&self, said: &PublishedRelease) -> Result<((), String), Fault> {
        same(&said.files.len(), &FILES.len(), "number of files", "a bundle")?;
        for file in &said.files {
            let bytes = self.files.need(&file.path)?;
            if Digest::of(bytes) != file.sha256 {
                return Err(Fault::Bytes(file.path.clone()));
            }
        }
        Ok(((), format!("{} files of the result have the digests in it", said.files.len())))
    }

    /// The tables of the releases, compared with those of the bundle.
    async fn made_again(
        &self,
        plan: &PrivatePlan,
        granted: &Granted,
        said: &PublishedRelease,
        hospitals: &[Hospital],
    ) -> Result<((), String), Fault> {
        for hospital in hospitals {
            combine::check(plan, said.permit, said.query_key, said.run, &hospital.release)?;
        }
        let report = self.reported(plan, granted, said, hospitals)?;
        let named: Vec<(&str, &Release)> = hospitals.iter().map(|h| (h.name.as_str(), &h.release)).collect();
        let (report, tables) = result::tables(plan, report, &named).await?;
        let text = serde_json::to_string(&report).map_err(|e| Fault::Json(layout::REPORT, e))?;
        let again = stated::files(&text, &tables)?;
        compared(&again, |path| self.files.need(path)).map_err(|fault| versions(fault, &said.software))?;
        let rows = tables.first().map_or(0, arrow::record_batch::RecordBatch::num_rows);
        let columns = tables.first().map_or(0, arrow::record_batch::RecordBatch::num_columns);
        Ok((
            (),
            format!(
                "{rows} rows of {columns} columns, and those of {} hospitals, are the same in Arrow and CSV",
                hospitals.len()
            ),
        ))
    }

    /// The report as it must be; of the one that is there only what others do not say is taken.
    fn reported(
        &self,
        plan: &PrivatePlan,
        granted: &Granted,
        said: &PublishedRelease,
        hospitals: &[Hospital],
    ) -> Result<ResultReport, Fault> {
        let there: ResultReport =
            serde_json::from_slice(self.files.need(layout::REPORT)?).map_err(|e| Fault::Json(layout::REPORT, e))?;
        let mut holders = there.holders;
        same(&holders.len(), &said.holders.len(), "list of hospitals", "the coordinator's account")?;
        for (holder, stated) in holders.iter_mut().zip(&said.holders) {
            same(
                &(&holder.name, holder.state),
                &(&stated.name, stated.state),
                "state of a hospital",
                "the coordinator's account",
            )?;
            *holder = reported_of(holder, hospitals.iter().find(|hospital| hospital.name == stated.name));
        }
        Ok(ResultReport {
            round: said.round.clone(),
            permit: said.permit,
            query: said.query,
            run: said.run,
            at: said.at,
            complete: said.holders.iter().all(|holder| holder.state == HolderState::Answered),
            confidence: there.confidence,
            preset: plan.preset(),
            synthetic: hospitals.iter().any(|hospital| hospital.receipt.synthetic),
            method: result::method(plan).into(),
            privacy: result::privacy(plan, &granted.permit),
            bites: Vec::new(),
            suppressed_cells: 0,
            holders,
        })
    }

    /// The reviews of the output, where the permit wants them.
    pub(super) fn reviews(&mut self, chain: &Chain<'_>) {
        let names = self.files.names(layout::REVIEWS, layout::DSSE);
        let paths: Vec<String> =
            names.iter().map(|name| format!("{}{name}{}", layout::REVIEWS, layout::DSSE)).collect();
        paths.iter().for_each(|path| self.files.pass(path));
        let came = match chain.whole() {
            Ok((granted, _, said)) => self.let_out(chain, granted, said, &paths),
            Err(since) => return self.skip(Link::Review, "", since),
        };
        self.settle(Link::Review, "", came);
    }

    fn let_out(
        &self,
        chain: &Chain<'_>,
        granted: &Granted,
        said: &PublishedRelease,
        paths: &[String],
    ) -> Result<((), String), Fault> {
        match granted.permit.output_review {
            Rule::Automatic => {
                rule(paths.is_empty(), || "the permit wants no review of output, and there is one".into())?;
                return Ok(((), "the permit wants no review of output".into()));
            }
            Rule::TwoPerson => {}
        }
        let (mut words, mut names) = (Vec::new(), Vec::new());
        for path in paths {
            let envelope = self.files.envelope::<OutputReview>(path)?;
            let (claimed, _) = envelope.peek::<OutputReview>()?;
            let stranger = || Fault::Rule(format!("{path}: no member of the committee signed it"));
            let member = chain.people.seat(claimed.reviewer).ok_or_else(stranger)?;
            let review = envelope.verify::<OutputReview>(&[member.key], 1)?;
            rule(layout::review(review.digest()) == *path, || format!("{path} is another review"))?;
            let about = (review.permit, review.query_key, review.run, review.result);
            same(&about, &(said.permit, said.query_key, said.run, said.result), "result", "the coordinator's account")?;
            let conflict = granted.permit.decision.recused.contains(&review.reviewer)
                || granted.permit.person(review.reviewer).is_some();
            rule(!conflict, || format!("{} is recused, or may ask under this permit", member.name))?;
            words.push((review.reviewer, review.verdict));
            names.push(format!("{} ({})", member.name, member.role));
        }
        match standing(words) {
            Standing::Released => Ok(((), format!("released by {}", names.join(", ")))),
            Standing::Awaiting => Err(Fault::Rule(format!("{} released it; two must", names.len()))),
            Standing::Refused => Err(Fault::Rule("a reviewer refused it".into())),
        }
    }
}

/// The same, with the versions where they differ: another one may write a table otherwise.
fn versions(fault: Fault, made_by: &str) -> Fault {
    let Fault::Cell(why) = &fault else { return fault };
    if made_by == SOFTWARE {
        return fault;
    }
    Fault::Cell(format!("{why}; it was made by {made_by}, and this is {SOFTWARE}: check with that version"))
}

/// A plan that is the one of every hospital's receipt.
fn agreed(plan: PrivatePlan, hospitals: &[Hospital]) -> Result<(PrivatePlan, String), Fault> {
    for Hospital { name, receipt, .. } in hospitals {
        let agrees = receipt.plan == plan.digest() && receipt.micro_rho == plan.micro_rho();
        let versions = || format!("{name} planned it otherwise (its software: {})", receipt.software);
        rule(agrees && receipt.atto_delta == plan.atto_delta(), versions)?;
    }
    let found = format!("plan {}, {} cells", plan.digest().short(), plan.cells());
    Ok((plan, found))
}

/// One hospital in the report, as its receipt has it.
fn reported_of(there: &HolderReport, hospital: Option<&Hospital>) -> HolderReport {
    let empty = HolderReport {
        as_of: None,
        study_left: None,
        stored: None,
        synthetic: false,
        exact_since: None,
        receipt: None,
        ..there.clone()
    };
    match hospital {
        None => empty,
        Some(hospital) => HolderReport {
            code: None,
            detail: None,
            as_of: Some(hospital.receipt.as_of),
            synthetic: hospital.receipt.synthetic,
            exact_since: hospital.receipt.exact_since,
            receipt: Some(hospital.envelope.clone()),
            ..empty
        },
    }
}

/// That the files are what was made again; of text, which line differs.
fn compared<'a>(
    again: &BTreeMap<String, Vec<u8>>,
    there: impl Fn(&str) -> Result<&'a [u8], Fault>,
) -> Result<(), Fault> {
    // Text first: it says where.
    let mut paths: Vec<&String> = again.keys().collect();
    paths.sort_by_key(|path| !path.ends_with(".csv"));
    for path in paths {
        let (made, there) = (again[path].as_slice(), there(path)?);
        if made == there {
            continue;
        }
        if path.ends_with(".csv") {
            return Err(Fault::Cell(first_difference(path, made, there)));
        }
        return Err(Fault::Cell(format!("{path} is not what the releases come to")));
    }
    Ok(())
}

/// The first line and field in which two texts differ.
fn first_difference(path: &str, made: &[u8], there: &[u8]) -> String {
    let (made, there) = (String::from_utf8_lossy(made), String::from_utf8_lossy(there));
    let (mut left, mut right) = (made.split('\n'), there.split('\n'));
    for line in 1.. {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) => (a.unwrap_or_default(), b.unwrap_or_default()),
        };
        if a != b {
            let field = a.split(',').zip(b.split(',')).position(|(a, b)| a != b).map_or(0, |field| field + 1);
            return format!("{path}, line {line}, field {field} is not what the releases come to");
        }
    }
    format!("{path} is not what the releases come to")
}
