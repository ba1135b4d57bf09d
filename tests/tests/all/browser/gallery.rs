//! Every page in one language: its words, axe-core, 320 pixels, the browser's console; and the switch to the other language.

use super::{
    visitor::Visitor,
    world::{HELD, HOSTILE, NEW, STUDY, World},
};

/// Looks at every page that there is.
pub(super) async fn walk(visitor: &mut Visitor<'_>, language: &str, world: &World) {
    let (release, held, result) = (world.release(STUDY), world.release(HELD), world.result());
    let at = |base: &str, more: &str| format!("{base}{more}");
    let pages = [
        (
            None,
            vec![
                ("register", "/".to_string()),
                ("register-nothing", "/?text=zzz".into()),
                ("study", at("/studies/", STUDY)),
                ("study-hostile", at("/studies/", HOSTILE)),
                ("release", release),
                ("release-hostile", world.release(HOSTILE)),
                ("release-held", held),
                ("log", "/log".into()),
                ("login", "/login".into()),
                ("missing", "/nothing".into()),
            ],
        ),
        (
            Some("mhlw"),
            vec![
                ("regulator", "/regulator".into()),
                ("regulator-uses", "/regulator?list=uses".into()),
                ("regulator-study", at("/regulator/studies/", STUDY)),
                ("regulator-hostile", at("/regulator/studies/", HOSTILE)),
                ("regulator-refusals", "/regulator/refusals".into()),
                ("regulator-log", "/regulator/log".into()),
                ("regulator-entry", "/regulator/log/3".into()),
                ("forbidden", "/desk".into()),
            ],
        ),
        (
            Some("ethicist"),
            vec![
                ("committee", "/committee".into()),
                ("committee-application", at("/committee/applications/", NEW)),
                ("committee-hostile", at("/committee/applications/", HOSTILE)),
                ("committee-results", "/committee/results".into()),
                ("committee-result", at("/committee/results/", &world.results[HELD])),
                ("committee-documents", "/committee/documents".into()),
            ],
        ),
        (
            Some("ada"),
            vec![
                ("desk", "/desk".into()),
                ("desk-query", "/desk/query".into()),
                ("desk-results", "/desk/results".into()),
                ("desk-result", result),
            ],
        ),
    ];
    let mut faults: Vec<String> = Vec::new();
    visitor.moves_to(&format!("http://{}", world.pages));
    for (who, pages) in pages {
        if let Some(who) = who {
            visitor.sign_in(&world.tokens[who]).await;
        }
        for (name, path) in pages {
            visitor.visit(&path).await;
            if ["missing", "forbidden"].contains(&name) {
                visitor.complaints_expected().await;
            }
            faults.extend(visitor.faults(name, language).await);
        }
        if who == Some("ada") {
            for (name, sql, there) in [
                ("desk-query-refused", "SELECT * FROM stay", "#refused"),
                ("desk-query-checked", super::world::SQL, "#line"),
            ] {
                visitor.visit("/desk/query").await;
                visitor.fill("#sql", sql).await;
                visitor.fill("#rho", "1000000").await;
                visitor.press("main form.card button[type=submit]").await;
                visitor.find(there).await;
                faults.extend(visitor.faults(name, language).await);
            }
        }
        if who.is_some() {
            visitor.sign_out().await;
        }
    }
    // The switch goes to the same page, and the choice is kept.
    let other = if language == "en" { "ja" } else { "en" };
    let study = at("/studies/", STUDY);
    for (link, expect) in [(other, other), (language, language)] {
        visitor.visit(&study).await;
        visitor.press(&format!("a.language[lang={link}]")).await;
        visitor.find(&format!("html[lang={expect}]")).await;
        visitor.visit(&study).await;
        visitor.find(&format!("html[lang={expect}]")).await;
    }

    visitor.moves_to(&format!("http://{}", world.console));
    visitor.visit("/login").await;
    faults.extend(visitor.faults("console-login", language).await);
    visitor.sign_in(&world.tokens["sato"]).await;
    for (name, path) in [
        ("console", "/"),
        ("console-permits", "/permits"),
        ("console-studies", "/studies"),
        ("console-queries", "/queries"),
        ("console-exact", "/exact"),
        ("console-patients", "/patients"),
        ("console-alerts", "/alerts"),
        ("console-log", "/log"),
    ] {
        visitor.visit(path).await;
        faults.extend(visitor.faults(name, language).await);
    }
    for (name, list, link) in [
        ("console-permit", "/permits", "main a[href^='/permits/']"),
        ("console-query", "/queries", "main a[href^='/queries/']"),
        ("console-exact-one", "/exact", "main a[href^='/exact/']"),
    ] {
        visitor.visit(list).await;
        visitor.press(link).await;
        visitor.find("main h1").await;
        faults.extend(visitor.faults(name, language).await);
    }
    visitor.sign_out().await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
