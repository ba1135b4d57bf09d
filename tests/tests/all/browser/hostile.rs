//! What others wrote is text on every page: it is there to be read, and does nothing.

use super::{
    visitor::Visitor,
    world::{ATTACK, ATTACK_SQL, HOSTILE, World},
};

/// What no page may have of what others wrote. (An alert would have failed the visit itself.)
const ALIVE: &str = "return [...document.querySelectorAll('main script, [onerror], [onload], [onfocus], [autofocus], img[src=x], \
                     a[href^=\"javascript:\" i], iframe, object, embed')].map(e => e.outerHTML)";

/// The visible words of the page, with white space as one.
const WORDS: &str = "return document.querySelector('main').textContent.replace(/\\s+/g, ' ')";

/// Looks at every page that shows what others wrote.
pub(super) async fn walk(visitor: &mut Visitor<'_>, world: &World) {
    let at = |base: &str| format!("{base}{HOSTILE}");
    let attack = [ATTACK];
    let sql = [ATTACK_SQL];
    let both = [ATTACK, ATTACK_SQL];
    let rounds = |page: &str| page.to_string();
    let pages: [(Option<&str>, Vec<(String, &[&str])>); 4] = [
        (
            None,
            vec![
                ("/".into(), &attack[..]),
                (at("/studies/"), &both),
                (world.release(HOSTILE), &both),
                ("/?text=%3Cscript%3Ealert(9)%3C/script%3E%22%3E%3Cimg+src=x+onerror=alert(9)%3E".into(), &[]),
                ("/studies/%3Cscript%3Ealert(9)%3C%2Fscript%3E".into(), &[]),
                ("/login?next=javascript:alert(9)".into(), &[]),
            ],
        ),
        (
            Some("mhlw"),
            vec![
                ("/regulator".into(), &sql),
                ("/regulator?list=uses".into(), &attack),
                (at("/regulator/studies/"), &both),
                ("/regulator?study=%22%3E%3Cscript%3Ealert(9)%3C/script%3E".into(), &[]),
            ],
        ),
        (Some("ethicist"), vec![("/committee".into(), &attack), (at("/committee/applications/"), &attack)]),
        (Some("ada"), vec![(rounds("/desk/results"), &["<script>alert(6)</script>"])]),
    ];
    visitor.moves_to(&format!("http://{}", world.pages));
    for (who, pages) in pages {
        if let Some(who) = who {
            visitor.sign_in(&world.tokens[who]).await;
        }
        for (path, expect) in pages {
            visitor.visit(&path).await;
            does_nothing(visitor, expect).await;
        }
        if who == Some("ada") {
            visitor.visit("/desk/results").await;
            visitor.press("main tbody tr:has(code) a").await;
            visitor.find("main pre code").await;
            does_nothing(visitor, &[]).await;
            // A form gives back what was typed.
            visitor.visit("/desk/query").await;
            visitor.fill("#sql", ATTACK_SQL).await;
            visitor.press("main form button[type=submit]").await;
            visitor.find("#line, .notice-error").await;
            let kept = visitor.ask("return document.querySelector('#sql').value.trim()", vec![]).await;
            assert_eq!(kept, ATTACK_SQL);
            does_nothing(visitor, &[]).await;
        }
        if who.is_some() {
            visitor.sign_out().await;
        }
    }
    visitor.moves_to(&format!("http://{}", world.console));
    visitor.sign_in(&world.tokens["sato"]).await;
    for (path, expect) in [("/permits", &attack), ("/queries?study=hostile", &sql)] {
        visitor.visit(path).await;
        does_nothing(visitor, expect).await;
    }
    visitor.visit("/studies").await;
    does_nothing(visitor, &[]).await;
    visitor.sign_out().await;
}

async fn does_nothing(visitor: &Visitor<'_>, expect: &[&str]) {
    let path = visitor.path().await;
    let alive = visitor.ask(ALIVE, vec![]).await;
    assert_eq!(alive, serde_json::json!([]), "{path}");
    let words = visitor.ask(WORDS, vec![]).await;
    let words = words.as_str().unwrap();
    for part in expect {
        assert!(words.contains(part), "{path}: {part:?} is not to be read in {words}");
    }
    if path.starts_with("/studies/%3C") {
        visitor.complaints_expected().await;
    }
    visitor.no_complaint().await;
}
