//! What people come for: anybody, a regulator, a member of the committee, a data user, an operator of a hospital.

use std::{collections::BTreeSet, fs, process::Output, time::Instant};

use super::{
    driver::{Driver, WITHIN},
    visitor::Visitor,
    world::{FIRST, HELD, NEW, SECOND, SQL, STUDY, World},
};

/// Anybody: from the register to a bundle that is verified without us.
pub(super) async fn public(visitor: &Visitor<'_>, driver: &Driver, world: &World) {
    visitor.visit("/").await;
    assert!(visitor.table("#uses table").await.len() > 4, "all uses are listed");
    // The search answers while somebody types, without a page of its own.
    visitor.fill("#text", "beds").await;
    visitor.reads("1 use found.").await;
    visitor.follow(STUDY).await;
    visitor.reads("To plan beds: how many stay for how long").await;
    let words = visitor.words().await;
    for part in
        ["Fewer transfers at night", "In the public interest", FIRST, SECOND, SQL, "https://doi.org/10.5555/12345678"]
    {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    assert!(!names(&words, "ada"), "a person is named in public: {words}");
    visitor.follow("Release and its lineage").await;
    assert_eq!(visitor.path().await, world.release(STUDY));

    // The picture and its list say the same.
    let script = "const digits = (of, form) => of.flatMap(e => e.textContent.match(form) || []).map(d => d.slice(0, 12));
        const all = css => [...document.querySelectorAll(css)];
        return [digits(all('figure svg g > title'), /[0-9a-f]{12}/g), digits(all('ol.steps .digest'), /[0-9a-f]{64}/g)];";
    let said: [BTreeSet<String>; 2] = serde_json::from_value(visitor.ask(script, vec![]).await).unwrap();
    let [picture, list] = said;
    assert!(picture.len() == 6 && picture.is_subset(&list), "in the picture {picture:?}, in the list {list:?}");
    let list = visitor.text("ol.steps").await;
    for part in ["Application", "Decision", "Permit", "Question", "Receipts", FIRST, SECOND, "Release", "Log"] {
        assert!(list.contains(part), "{part} is not in {list}");
    }

    visitor.press("a[href$='/bundle.zip']").await;
    let zip = downloaded(driver).await;
    let trust = world.file("trust.toml");
    fs::write(&trust, world.network.sekisho(&["verify", "--template"]).unwrap()).unwrap();
    let zip = zip.display().to_string();
    let verified = world.person("", &["verify", &zip, "--trust", &trust], 0);
    assert!(verified.contains("Every link holds.") && !verified.contains("BROKEN"), "{verified}");

    visitor.visit("/log").await;
    visitor.reads("Cosigned").await;
    visitor.no_complaint().await;
}

/// Whether a text has a word by itself.
fn names(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|one| one == word)
}

/// The one file that was downloaded, once it is whole.
async fn downloaded(driver: &Driver) -> std::path::PathBuf {
    let until = Instant::now() + WITHIN;
    loop {
        let files = fs::read_dir(driver.downloads()).unwrap().map(|file| file.unwrap().path());
        if let Some(zip) = files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "zip")) {
            return zip;
        }
        assert!(Instant::now() < until, "nothing was downloaded");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A regulator: each way to search, the export, and what was spent.
pub(super) async fn regulator(visitor: &Visitor<'_>, world: &World) {
    visitor.visit("/regulator").await;
    assert_eq!(visitor.path().await, "/login?next=/regulator");
    visitor.fill("#token", "not a token").await;
    visitor.press("main form button[type=submit]").await;
    visitor.reads("This token is not known, or has expired.").await;
    visitor.complaints_expected().await;
    visitor.sign_in(&world.tokens["mhlw"]).await;

    let today = crate::now().date_naive();
    let (yesterday, tomorrow) = (today - chrono::Duration::days(2), today + chrono::Duration::days(2));
    let key: sekisho_protocol::keys::PublicKey = world.network.public_key("researcher").unwrap().parse().unwrap();
    let print = key.fingerprint().to_string();
    for (field, value, other) in [
        ("study", STUDY.to_string(), "nothing".to_string()),
        ("organisation", "University".into(), "Nobody".into()),
        ("holder", SECOND.into(), "hospital-9".into()),
        ("person", print, "0".repeat(64)),
        ("from", yesterday.to_string(), tomorrow.to_string()),
        ("to", tomorrow.to_string(), yesterday.to_string()),
    ] {
        for (value, found) in [(value, true), (other, false)] {
            visitor.visit("/regulator").await;
            // A date is typed in the order of the browser's language; what is sent is this.
            let set = "document.getElementById(arguments[0]).value = arguments[1]";
            visitor.ask(set, vec![field.into(), value.clone().into()]).await;
            visitor.press("main form[role=search] button[type=submit]").await;
            visitor.arrives(&format!("{field}={}", value)).await;
            visitor.find("#found").await;
            let questions = visitor.words().await.contains("SELECT sex");
            assert_eq!(questions, found, "{field}={value}: {}", visitor.words().await);
        }
    }
    for (field, value, found) in [
        ("purpose", "scientific_research", true),
        ("purpose", "education", false),
        ("state", "automatic", true),
        ("state", "interrupted", false),
    ] {
        visitor.visit("/regulator").await;
        visitor.choose(&format!("#{field}"), value).await;
        visitor.press("main form[role=search] button[type=submit]").await;
        visitor.arrives(&format!("{field}={value}")).await;
        visitor.find("#found").await;
        assert_eq!(visitor.words().await.contains("SELECT sex"), found, "{field}={value}");
    }
    // The export is the table.
    visitor.visit("/regulator").await;
    let table = visitor.table("section[aria-labelledby=found] table").await;
    let script = "const done = arguments[arguments.length - 1];
        fetch([...document.querySelectorAll('a')].find(a => a.textContent.includes('CSV')).href).then(r => r.text()).then(done)";
    let csv = visitor.later(script).await;
    let rows = records(csv.as_str().unwrap());
    assert_eq!(rows.len(), table.len(), "{rows:?} is not {table:?}");
    for (row, shown) in rows.iter().zip(&table).skip(1) {
        let (row, shown) = (bare(&row.concat()), bare(&shown.concat()));
        assert!(shown.contains(STUDY) == row.contains(STUDY), "{row}\n{shown}");
    }

    // What the chart draws is in its table.
    visitor.visit(&format!("/regulator/studies/{STUDY}")).await;
    let script = "return [...document.querySelectorAll('section[aria-labelledby=budget] figure')].map(f => {
        let table = f.nextElementSibling;
        while (table && !table.querySelector('table')) table = table.nextElementSibling;
        return [f.querySelectorAll('svg circle').length, table.querySelectorAll('tbody tr').length] })";
    let drawn: Vec<(usize, usize)> = serde_json::from_value(visitor.ask(script, vec![]).await).unwrap();
    assert_eq!(drawn.len(), 2, "a chart for each hospital: {drawn:?}");
    assert!(drawn.iter().all(|(marks, rows)| *marks > 0 && marks <= rows), "{drawn:?}");
    let words = visitor.words().await;
    assert!(words.contains("1,000,000") || words.contains("1000000"), "what was spent is not in {words}");
    assert!(names(&words, "ada"), "regulators see persons: {words}");
    visitor.visit("/regulator/refusals").await;
    visitor.reads("policy").await;
    visitor.no_complaint().await;
    visitor.sign_out().await;
}

/// The records of a CSV file.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    records
}

/// Letters and digits alone.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

/// The command lines of a page.
async fn lines(visitor: &Visitor<'_>) -> Vec<String> {
    let script = "return [...document.querySelectorAll('main pre code')].flatMap(e => e.textContent.split('\\n'))
        .map(l => l.trim()).filter(l => l.startsWith('sekisho '))";
    serde_json::from_value(visitor.ask(script, vec![]).await).unwrap()
}

fn ended_well(output: &Output, line: &str) -> String {
    let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {said}{words}");
    said.into()
}

/// A member: reads an application, finds it complete, approves it by the page's own lines, and hands the permit in.
pub(super) async fn member(visitor: &Visitor<'_>, world: &World) {
    visitor.visit("/committee").await;
    visitor.sign_in(&world.tokens["ethicist"]).await;
    visitor.visit("/committee").await;
    visitor.follow(NEW).await;
    for part in ["to see who comes back", "Standard deviation", "data protection, 2026", "Versions"] {
        visitor.reads(part).await;
    }
    let line = |lines: &[String], has: &[&str]| -> String {
        let found = lines.iter().find(|line| has.iter().all(|part| line.contains(part)));
        found.unwrap_or_else(|| panic!("no line with {has:?} in {lines:#?}")).clone()
    };
    let complete = line(&lines(visitor).await, &["review complete", NEW]);
    ended_well(&world.types(&complete, "patients"), &complete);

    // Complete now; the page tells how to approve.
    visitor.visit(&format!("/committee/applications/{NEW}")).await;
    let steps = lines(visitor).await;
    let overrides = "return [...document.querySelectorAll('main pre code')].map(e => e.textContent).find(t => t.includes('[decision]'))";
    let overrides = visitor.ask(overrides, vec![]).await;
    let (from, permit) = (world.written("permit.toml", overrides.as_str().unwrap()), world.file("permit.dsse.json"));
    let here = |line: &str| line.replace("permit.toml", &from).replace("permit.dsse.json", &permit);
    let draft = here(&line(&steps, &["permit new", NEW]));
    let approve = here(&line(&steps, &["review approve", NEW]));
    ended_well(&world.types(&draft, "ethicist"), &draft);
    ended_well(&world.types(&approve, "ethicist"), &approve);

    // One signature is no quorum: the page says so, and nothing has changed.
    hand_in(visitor, &fs::read_to_string(&permit).unwrap()).await;
    visitor.reads("The document was not taken, and nothing changed.").await;
    visitor.reads("quorum_not_met").await;
    visitor.complaints_expected().await;
    ended_well(&world.types(&approve, "patients"), &approve);
    hand_in(visitor, &fs::read_to_string(&permit).unwrap()).await;
    visitor.reads("The document was taken.").await;
    visitor.reads("permit_waiting").await;
    visitor.visit(&format!("/committee/applications/{NEW}")).await;
    visitor.find("main .chip-ok").await;

    visitor.no_complaint().await;
    visitor.sign_out().await;

    // A result under review has its facts, who has spoken, and the line for whoever has not.
    visitor.sign_in(&world.tokens["patients"]).await;
    visitor.visit("/committee/results").await;
    visitor.reads(HELD).await;
    visitor.press("main tbody a[href^='/committee/results/']").await;
    visitor.reads("large cells").await;
    let review = line(&lines(visitor).await, &["output release"]);
    assert!(review.contains(&world.results[HELD][..8]), "{review}");
    visitor.no_complaint().await;
    visitor.sign_out().await;
}

async fn hand_in(visitor: &Visitor<'_>, document: &str) {
    visitor.visit("/committee/documents").await;
    // A person pastes it.
    visitor.ask("document.querySelector('#document').value = arguments[0]", vec![document.into()]).await;
    visitor.press("main form.card button[type=submit]").await;
    visitor.find("main .notice").await;
}

/// A data user: writes a question, sees its price, runs the page's line, and finds the answer.
pub(super) async fn data_user(visitor: &Visitor<'_>, world: &World) {
    const QUESTION: &str = "SELECT sex, count(*) AS it's, avg(days) AS days FROM stay GROUP BY sex";
    let question = QUESTION.replace("it's", "\"it's\"");
    visitor.visit("/desk").await;
    visitor.sign_in(&world.tokens["ada"]).await;
    visitor.visit("/desk").await;
    visitor.reads("Budget at each hospital").await;
    let link = "//section[.//h2[contains(., 'beds')]]//a[contains(., 'Write a query')]";
    visitor.press_path(link).await;
    visitor.fill("#sql", "SELECT * FROM stay").await;
    visitor.press("main form.card button[type=submit]").await;
    visitor.find(".notice-error").await;
    visitor.complaints_expected().await;
    visitor.fill("#sql", &question).await;
    visitor.fill("#rho", "500000").await;
    visitor.press("main form.card button[type=submit]").await;
    visitor.find("#line").await;
    for part in ["What it costs", "How exact the answer would be", "new: charged"] {
        visitor.reads(part).await;
    }
    let lines = lines(visitor).await;
    let dry = lines.iter().find(|line| line.contains("--dry-run")).unwrap();
    let ask = lines.iter().find(|line| line.contains("sekisho query") && !line.contains("--dry-run")).unwrap();
    ended_well(&world.types(dry, "researcher"), dry);
    let said = ended_well(&world.types(ask, "researcher"), ask);

    // The page has what the command line said.
    visitor.visit("/desk/results").await;
    visitor.press("main tbody tr:first-child a").await;
    visitor.reads("All hospitals together").await;
    let table = visitor.table("main figure ~ .scroll table").await;
    assert!(table.len() > 2, "{table:?}");
    for row in &table[1..] {
        let told = said.lines().any(|line| row.iter().all(|cell| line.contains(cell.as_str())));
        assert!(told, "{row:?} is not in {said}");
    }
    let marks = visitor.ask("return document.querySelectorAll('main figure circle').length", vec![]).await;
    assert!(marks.as_u64().unwrap() >= 2 * (table.len() as u64 - 1), "two columns of each row are drawn: {marks}");
    visitor.no_complaint().await;
    visitor.sign_out().await;
}

/// An operator of a hospital: accepts a permit that waits, suspends a study, and lets it go on.
pub(super) async fn hospital(visitor: &Visitor<'_>, world: &World) {
    visitor.visit("/").await;
    visitor.sign_in(&world.tokens["sato"]).await;
    visitor.visit("/permits").await;
    // The one that the committee granted just now.
    visitor.follow(NEW).await;
    visitor.fill("#accept-reason", "Board of 20 November").await;
    visitor.press("form[action$='/accept'] button").await;
    visitor.reads("Board of 20 November").await;

    let ask = |run: &str, ends: i32| {
        let query = ["query", "--permit", STUDY, "--sql", SQL, "--rho", "250000", "--holders", SECOND, "--run", run];
        world.person("researcher", &query, ends)
    };
    visitor.visit("/studies").await;
    visitor.press_path(&format!("//article[contains(@aria-labelledby, 'study-{STUDY}')]//summary")).await;
    visitor.fill(&format!("#suspend-{STUDY}"), "An inspection").await;
    visitor.press(&format!("form[action='/studies/{STUDY}/suspend'] button")).await;
    visitor.find(&format!("form[action='/studies/{STUDY}/resume']")).await;
    visitor.reads("An inspection").await;
    let refused = ask("7", 1);
    assert!(refused.contains("suspended"), "{refused}");
    visitor.fill(&format!("#resume-{STUDY}"), "The inspection is over").await;
    visitor.press(&format!("form[action='/studies/{STUDY}/resume'] button")).await;
    visitor.find(&format!("form[action='/studies/{STUDY}/suspend']")).await;
    ask("7", 0);
    // Who did it is noted.
    visitor.visit("/").await;
    for part in ["sato", "The inspection is over"] {
        visitor.reads(part).await;
    }
    visitor.no_complaint().await;
    visitor.sign_out().await;
}

/// Anybody whose browser runs no scripts: the register, its search, a study, and the way in.
pub(super) async fn without_scripts(visitor: &Visitor<'_>, world: &World) {
    visitor.visit("/").await;
    visitor.fill("#text", STUDY).await;
    visitor.press("main form button[type=submit]").await;
    visitor.reads("1 use found.").await;
    assert!(visitor.path().await.contains("text=beds"), "{}", visitor.path().await);
    visitor.follow(STUDY).await;
    visitor.reads("Decisions").await;
    visitor.sign_in(&world.tokens["mhlw"]).await;
    visitor.visit("/regulator?study=beds").await;
    visitor.reads("Export all as CSV").await;
    visitor.sign_out().await;
}
