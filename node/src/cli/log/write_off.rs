//! `log write-off`: the operator's decision on a database that is lost for good.
//!
//! Promises: nothing is written off before the network said what it saw of the lost log; for every study with something left
//! the operator says what is charged beside the receipts, in numbers or all of it; a receipt counts only with this hospital's
//! own signature.

use std::{collections::BTreeMap, fs, path::PathBuf};

use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_protocol::{
    clock::Clock,
    dsse::Envelope,
    key_file,
    keys::PublicKey,
    log::entry::Kind,
    receipt::Receipt,
    record::WrittenOff,
    roster::{Roster, is_name},
    units::MicroRho,
};
use serde_json::json;

use super::named;
use crate::{
    cli::{Output, opened, table},
    ledger::{Ledger, Loss, Recovered, reason},
    log::{Log, MAX_PAGE},
};

/// The most bytes of a file of receipts.
const MAX_FILE: u64 = 256 << 20;

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// This hospital's receipts, one envelope a line, as `sekisho-coordinator log receipts HOSPITAL` prints them.
    #[arg(long)]
    receipts: PathBuf,
    /// What a study is charged beside its receipts, in micro-rho: for runs that nobody has a receipt of. 0 says that there were
    /// none. Repeat it.
    #[arg(long, value_name = "STUDY=MICRO_RHO", value_parser = amount)]
    rho: Vec<(String, MicroRho)>,
    /// Charges every study that is not named by --rho all that it has left. It is then answered no more.
    #[arg(long)]
    all_left: bool,
    /// You recorded again every notice and refusal of a patient that was recorded since the copy was made.
    #[arg(long, required = true)]
    register_restored: bool,
    /// Who decides this.
    #[arg(long, value_parser = reason)]
    by: String,
    /// Why, in one line; the regulator reads it.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn amount(text: &str) -> Result<(String, MicroRho), String> {
    let (study, rho) = text.split_once('=').ok_or("write STUDY=MICRO_RHO")?;
    let rho = rho.parse::<u64>().map_err(|_| "the amount is a whole number of micro-rho".to_string())?;
    let rho = MicroRho::try_from(rho).map_err(|error| error.to_string())?;
    if is_name(study) { Ok((study.into(), rho)) } else { Err(format!("{study} is no study id")) }
}

/// Writes off what the lost log charged.
pub(super) async fn write_off(args: &Args, clock: &impl Clock) -> Result<()> {
    let (config, ledger, store) = opened(&args.config).await?;
    let (origin, key) = named(&config, &ledger, store).await?;
    let none = || {
        miette!(
            "nothing is known to be lost: the log here has all that the network saw of it. Start the node once, so that the \
             coordinator says what it saw"
        )
    };
    let (lost, why) = ledger.log().loss(&origin).await.into_diagnostic()?.ok_or_else(none)?;
    let keys = own_keys(&ledger.log(), &config.name, key.public()).await?;
    let receipts = receipts(&args.receipts, &config.name, &keys)?;
    let further = further(args, &ledger, &receipts).await?;
    let loss = Loss {
        node: &config.name,
        lost: &lost,
        receipts: &receipts,
        further: &further,
        by: &args.by,
        reason: &args.reason,
        at: clock.now(),
    };
    let signing = key_file::read(&config.signing_key).into_diagnostic()?;
    let sign = |written: &_| Envelope::sign(written, &[&signing]).map(|envelope| envelope.to_json());
    let written = ledger.write_off(&loss, sign).await.into_diagnostic()?;
    match args.output {
        Output::Json => println!("{}", json!({ "why": why, "log": written.log, "studies": written.studies })),
        Output::Table => {
            let row = |study: &WrittenOff| {
                let WrittenOff { study_id, receipts, micro_rho, further_micro_rho, .. } = study;
                vec![study_id.clone(), receipts.to_string(), micro_rho.to_string(), further_micro_rho.to_string()]
            };
            let header = ["study", "receipts", "charged again", "charged beside them"];
            println!("{}", table(header, written.studies.iter().map(row)));
            println!("the log goes on as {}", written.log);
        }
    }
    eprintln!(
        "Written off: {why}. The node answers again once the coordinator has taken this; a running node hands it over within \
         seconds. Look through `sekisho-node permits list` and your suspensions: what a person decided since the copy is lost too."
    );
    Ok(())
}

/// The keys that this hospital signed with: the one in use, and those of the rosters in its log.
async fn own_keys(log: &Log, name: &str, in_use: PublicKey) -> Result<Vec<PublicKey>> {
    let (mut keys, mut from) = (vec![in_use], 0);
    loop {
        let page = log.entries_of(Kind::Roster, from, MAX_PAGE).await.into_diagnostic()?;
        let Some(last) = page.last() else { return Ok(keys) };
        from = last.index + 1;
        for opened in page.iter().filter_map(|leaf| leaf.opened.as_ref()) {
            // They were verified when they were taken.
            let roster = Envelope::from_json::<Roster>(&opened.statement).and_then(|roster| roster.peek::<Roster>());
            let (roster, _) = roster.into_diagnostic()?;
            keys.extend(roster.member(name).map(|member| member.signing_key).filter(|key| !keys.contains(key)));
        }
    }
}

/// The receipts of a file, each signed by one of `keys`.
fn receipts(path: &PathBuf, name: &str, keys: &[PublicKey]) -> Result<Vec<Recovered>> {
    let place = || path.display().to_string();
    if fs::metadata(path).into_diagnostic().wrap_err_with(place)?.len() > MAX_FILE {
        return Err(miette!("{} has more than {MAX_FILE} bytes", place()));
    }
    let text = fs::read_to_string(path).into_diagnostic().wrap_err_with(place)?;
    let receipt = |(number, line): (usize, &str)| {
        let envelope = Envelope::from_json::<Receipt>(line.as_bytes());
        let verified = envelope.and_then(|envelope| envelope.verify::<Receipt>(keys, 1));
        let verified = verified.into_diagnostic().wrap_err_with(|| format!("{}, line {}", place(), number + 1))?;
        if verified.node != name {
            return Err(miette!("{}, line {}: a receipt of {}", place(), number + 1, verified.node));
        }
        Ok(Recovered { receipt: verified.document().clone(), envelope: line.as_bytes().to_vec() })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(receipt).collect()
}

/// What each study is charged beside its receipts, as the operator says.
async fn further(args: &Args, ledger: &Ledger, receipts: &[Recovered]) -> Result<BTreeMap<String, MicroRho>> {
    let mut further = BTreeMap::new();
    for (study, rho) in &args.rho {
        if further.insert(study.clone(), *rho).is_some() {
            return Err(miette!("--rho names study {study} twice"));
        }
    }
    let mut open = Vec::new();
    for study in ledger.budget().await.into_diagnostic()?.studies {
        let mut left = study.earmark.saturating_sub(study.spent);
        for Recovered { receipt, .. } in receipts.iter().filter(|r| r.receipt.study_id == study.study_id) {
            let key = crate::ledger::RunKey { permit: receipt.permit, query_key: receipt.query_key, run: receipt.run };
            if ledger.find(&key).await.into_diagnostic()?.is_none() {
                left = left.saturating_sub(receipt.micro_rho);
            }
        }
        if left == MicroRho::ZERO || further.contains_key(&study.study_id) {
            continue;
        }
        if args.all_left {
            further.insert(study.study_id, left);
        } else {
            open.push(format!("--rho {}=AMOUNT ({left} left)", study.study_id));
        }
    }
    if open.is_empty() {
        return Ok(further);
    }
    Err(miette!(
        "say what these studies are charged for runs that nobody has a receipt of, or give --all-left: {}. The coordinator's \
         log tells which queries this hospital was asked",
        open.join(", ")
    ))
}
