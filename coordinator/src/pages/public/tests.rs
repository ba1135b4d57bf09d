//! The public pages over the register of one record, with hostile texts in it.

use askama::Template;
use sekisho_protocol::{
    digest::Digest,
    output_review::Verdict,
    pages::{Language, Visitor},
};

use super::*;
use crate::{
    bundle::tests::net::{Net, SQL, Shape},
    documents::tests::now,
    pages::SITE,
    use_register::tests::{HOSTILE, register as record},
};

fn visitor(language: Language) -> Visitor {
    Visitor::passing(SITE, language, "/")
}

#[test]
fn rho_is_written_exactly() {
    for (micro, expect) in
        [(0, "0"), (1, "0.000001"), (50_000, "0.05"), (1_000_000, "1"), (200_000_000, "200"), (1_500_000, "1.5")]
    {
        assert_eq!(rho(micro), expect);
    }
}

#[test]
fn a_search_finds_the_uses_that_have_all_its_words_in_either_language() {
    let register = record();
    for (text, state, holder, expect) in [
        ("", "", "", &["application-1", "application-2", "application-3"][..]),
        ("京都大学", "", "", &["application-1"]),
        ("HEALTH institute", "", "", &["application-2", "application-3"]),
        ("health nowhere", "", "", &[]),
        ("医療の改善", "", "", &["application-2"]),
        ("improving", "refused", "", &["application-2"]),
        ("improving", "in_force", "", &[]),
        ("", "", "uji", &["application-1"]),
        ("", "", "uj", &[]),
        ("'; DROP TABLE document; --", "", "", &[]),
    ] {
        let asked =
            register::Asked { text: text.into(), state: state.into(), holder: holder.into(), page: Some(usize::MAX) };
        let page = register::found(&register, &asked, &visitor(Language::En));
        let mut found: Vec<&str> = page.shown.iter().map(|used| used.id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, expect, "{text} {state} {holder}");
    }
}

#[test]
fn what_others_wrote_stays_text_and_keeps_its_direction() {
    let register = record();
    for language in [Language::En, Language::Ja] {
        let visitor = visitor(language);
        let asked = register::Asked { text: HOSTILE.into(), ..Default::default() };
        let mut pages = vec![register::found(&register, &asked, &visitor).render().unwrap()];
        for used in &register.uses {
            pages.push(study::of(&register, &used.study, &visitor).unwrap().render().unwrap());
        }
        for page in &pages {
            assert!(
                !page.contains("<img src=x") && !page.contains("</script><") && !page.contains("<b>Health"),
                "{page}"
            );
        }
        let granted = &pages[1];
        assert!(granted.contains("<bdi>&#60;/script&#62;&#60;img src=x onerror=alert(1)&#62;"), "{granted}");
        // The script of ours is all there is, and nothing is styled in place.
        assert!(pages.iter().all(|page| page.matches("<script").count() == 1 && !page.contains(" style=")));
    }
}

#[test]
fn of_a_result_that_waits_only_its_state_is_shown() {
    let register = record();
    let waits = register.uses[0].queries.iter().find(|query| query.output.code == "awaiting").unwrap();
    let digits = waits.result.unwrap().to_string();
    for (named, found) in [(&digits[..], true), (&digits[..12], true), (&digits[..11], false), ("", false)] {
        assert_eq!(release::find(&register, named).is_some(), found, "{named}");
    }
    let (used, query, result) = release::find(&register, &digits).unwrap();
    assert!(!is_open(query));
    for language in [Language::En, Language::Ja] {
        let page = visitor(language).page("Release");
        let text = release::ReleasePage { page, used, query, result, way: None, bundle: false }.render().unwrap();
        assert!(text.contains("chip-wait"), "{text}");
        for hidden in ["SELECT", "nara", "tokyo", "0.002", "bundle.zip", "<svg", "ethicist"] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
    }
}

/// The register of `net`, the result in it, and what its page has.
async fn shown(
    net: &Net,
    result: sekisho_protocol::digest::Digest,
    language: Language,
) -> (String, Option<release::Way>) {
    let register = use_register::export(&net.documents, &net.store, None, now()).await.unwrap();
    let (used, query, found) = release::find(&register, &result.to_string()).unwrap();
    assert_eq!(found, result);
    let page = visitor(language).page("");
    let way = if is_open(query) {
        let lineage = lineage::Lineage::of(&net.store, used, query, result).await.unwrap();
        Some(release::drawn(lineage, &page).unwrap())
    } else {
        None
    };
    let shown = release::ReleasePage { page, used, query, result, way, bundle: false };
    (shown.render().unwrap(), shown.way)
}

#[tokio::test]
async fn a_lineage_has_every_signed_statement_from_permit_to_release_and_who_did_not_answer() {
    let mut net = Net::new(Shape { hospitals: 4, missing: true, ..Shape::default() }).await;
    let result = net.ask(SQL, 1).await;
    for (language, silent) in [(Language::En, "Offline"), (Language::Ja, "接続なし")] {
        let (text, way) = shown(&net, result, language).await;
        let way = way.unwrap();
        let (answered, last) = net.names.split_at(3);
        let parts: Vec<&str> = way.lineage.parts.iter().map(|part| part.receipt.node.as_str()).collect();
        assert_eq!(parts, answered);
        assert_eq!(way.lineage.missing.len(), 1);
        // Permit, query, three receipts and the statement are in the log.
        assert_eq!(way.lineage.logged(), (6, 6));
        for digest in way.lineage.parts.iter().map(|part| part.digest).chain([way.lineage.permit.digest, result]) {
            assert!(text.contains(&digest.to_string()) && way.picture.contains(&digest.short()), "{digest}");
        }
        assert!(way.picture.contains(&last[0]) && way.picture.contains(silent), "{}", way.picture);
        // A line to each of four hospitals and from three, one to the query, one to the log, one down to the permit.
        assert_eq!(way.picture.matches("<path").count(), 2 * (4 + 3 + 1 + 1 + 1));
        assert!(
            way.picture.contains("<title id") && way.picture.contains("<desc id") && !way.picture.contains("style=")
        );
        assert!(way.description.contains(&net.names[0]));
    }
}

#[tokio::test]
async fn of_an_exact_release_it_is_said_that_it_is_exact_and_that_no_guarantee_holds() {
    let mut net = Net::new(Shape { hospitals: 2, exact: true, ..Shape::default() }).await;
    let result = net.ask(SQL, 1).await;
    for (language, exact, since) in [
        (Language::En, "Exact under disclosure rules", "no guarantee of differential privacy holds"),
        (Language::Ja, "正確な集計", "差分プライバシーの保証はありません"),
    ] {
        let (text, way) = shown(&net, result, language).await;
        let way = way.unwrap();
        assert!(text.contains(exact) && text.contains(since), "{text}");
        let register = use_register::export(&net.documents, &net.store, None, now()).await.unwrap();
        let study = study::of(&register, "study-1", &visitor(language)).unwrap().render().unwrap();
        assert!(
            study.contains(exact) && study.matches(&Digest::of(SQL.as_bytes()).to_string()).count() == 1,
            "{study}"
        );
        for nothing in ["(rho)</dt>", "rho 0", "rho</dt>", "added noise", "ノイズを加え、"] {
            assert!(!text.contains(nothing) && !way.picture.contains(nothing), "{nothing}: {text}");
        }
    }
}

#[tokio::test]
async fn a_result_under_review_has_a_lineage_once_two_reviewers_released_it_and_never_after_a_refusal() {
    let mut net = Net::new(Shape { hospitals: 2, two_person: true, ..Shape::default() }).await;
    let (first, second) = (net.ask(SQL, 1).await, net.ask(SQL, 2).await);
    for (reviewer, verdict, of, expect) in [
        (None, Verdict::Release, first, false),
        (Some("sato"), Verdict::Release, first, false),
        (Some("ito"), Verdict::Release, first, true),
        (Some("sato"), Verdict::Refuse, second, false),
        (Some("ito"), Verdict::Release, second, false),
    ] {
        if let Some(reviewer) = reviewer {
            net.review(of, reviewer, verdict).await;
        }
        let (text, way) = shown(&net, of, Language::En).await;
        assert_eq!(way.is_some(), expect, "{reviewer:?}");
        assert_eq!(text.contains("SELECT"), expect, "{reviewer:?}");
    }
}
