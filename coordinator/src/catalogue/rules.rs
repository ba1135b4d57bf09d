//! What HealthDCAT-AP release 8 makes mandatory of data that is not public: a table of rules over the triples.
//!
//! They are the shapes of severity `Violation` that ask for something (`non-public-shapes.ttl`, `range.ttl` and
//! `mdr-vocabularies.shape.ttl` of the release's validator, CC BY 4.0). Deliberately absent: what the shapes only recommend, and
//! whether a term is in its list.

use oxrdf::{Graph, NamedNode, NamedNodeRef, NamedOrBlankNodeRef, TermRef, Triple, vocab::rdf};

use super::terms::{
    ACCESS_RIGHT, CATEGORY, CODING_SYSTEM, CSVW, CV, DATASET_TYPE, DCAT, DCATAP, DCT, DPV, DQV, FOAF, GEODCATAP,
    HEALTH, HEALTH_THEME, PUBLISHER_TYPE, RDFS, SKOS, STANDARD, THEME, VCARD, XSD,
};

/// What an object must be.
#[derive(Clone, Copy)]
enum Is {
    /// A literal.
    Literal,
    /// A literal of this XML type.
    Typed(&'static str),
    /// An address.
    Address,
    /// A node of this class, (namespace, name).
    Class(&'static str, &'static str),
    /// A term of this list, which says so itself.
    Term(&'static str),
}

struct Rule {
    class: (&'static str, &'static str),
    path: (&'static str, &'static str),
    least: usize,
    most: usize,
    is: Is,
}

const MANY: usize = usize::MAX;

const fn rule(
    class: (&'static str, &'static str),
    path: (&'static str, &'static str),
    least: usize,
    most: usize,
    is: Is,
) -> Rule {
    Rule { class, path, least, most, is }
}

const DATASET: (&str, &str) = (DCAT, "Dataset");
const AGENT: (&str, &str) = (FOAF, "Agent");

const RULES: &[Rule] = &[
    rule(DATASET, (DCT, "title"), 1, MANY, Is::Literal),
    rule(DATASET, (DCT, "description"), 1, MANY, Is::Literal),
    rule(DATASET, (DCT, "identifier"), 1, MANY, Is::Literal),
    rule(DATASET, (DCT, "accessRights"), 1, 1, Is::Term(ACCESS_RIGHT.scheme)),
    rule(DATASET, (DCATAP, "applicableLegislation"), 1, MANY, Is::Address),
    rule(DATASET, (DCAT, "theme"), 1, MANY, Is::Term(THEME.scheme)),
    rule(DATASET, (HEALTH, "hdab"), 1, 1, Is::Class(FOAF, "Agent")),
    rule(DATASET, (HEALTH, "healthCategory"), 1, MANY, Is::Term(CATEGORY.scheme)),
    rule(DATASET, (HEALTH, "hasStructuredData"), 1, 1, Is::Typed("boolean")),
    rule(DATASET, (HEALTH, "hasVariables"), 1, MANY, Is::Class(CSVW, "TableGroup")),
    rule(DATASET, (DCAT, "contactPoint"), 1, MANY, Is::Class(VCARD, "Kind")),
    rule(DATASET, (DCAT, "keyword"), 1, MANY, Is::Literal),
    rule(DATASET, (DCT, "type"), 1, MANY, Is::Term(DATASET_TYPE.scheme)),
    rule(DATASET, (DCT, "provenance"), 1, MANY, Is::Class(DCT, "ProvenanceStatement")),
    rule(DATASET, (DCAT, "distribution"), 1, MANY, Is::Class(DCAT, "Distribution")),
    rule(DATASET, (DCT, "publisher"), 0, 1, Is::Class(FOAF, "Agent")),
    rule(DATASET, (GEODCATAP, "custodian"), 0, 1, Is::Class(FOAF, "Agent")),
    rule(DATASET, (HEALTH, "healthTheme"), 0, MANY, Is::Term(HEALTH_THEME.scheme)),
    rule(DATASET, (HEALTH, "hasCodingSystem"), 0, MANY, Is::Term(CODING_SYSTEM.scheme)),
    rule(DATASET, (DCT, "conformsTo"), 0, MANY, Is::Term(STANDARD.scheme)),
    rule(DATASET, (HEALTH, "analytics"), 0, MANY, Is::Class(DCAT, "Distribution")),
    rule(DATASET, (HEALTH, "numberOfRecords"), 0, 1, Is::Typed("nonNegativeInteger")),
    rule(DATASET, (HEALTH, "numberOfUniqueIndividuals"), 0, 1, Is::Typed("nonNegativeInteger")),
    rule(DATASET, (HEALTH, "minTypicalAge"), 0, 1, Is::Typed("nonNegativeInteger")),
    rule(DATASET, (HEALTH, "maxTypicalAge"), 0, 1, Is::Typed("nonNegativeInteger")),
    rule(DATASET, (HEALTH, "populationCoverage"), 0, MANY, Is::Literal),
    rule(DATASET, (HEALTH, "retentionPeriod"), 0, 1, Is::Class(DCT, "PeriodOfTime")),
    rule(DATASET, (DCT, "temporal"), 0, MANY, Is::Class(DCT, "PeriodOfTime")),
    rule(DATASET, (DPV, "hasLegalBasis"), 0, MANY, Is::Class(DPV, "LegalBasis")),
    rule(DATASET, (DPV, "hasPurpose"), 0, MANY, Is::Class(DPV, "Purpose")),
    rule(DATASET, (DPV, "hasPersonalData"), 0, MANY, Is::Class(DPV, "PersonalData")),
    rule(DATASET, (DQV, "hasQualityAnnotation"), 0, MANY, Is::Class(DQV, "QualityCertificate")),
    rule(AGENT, (FOAF, "name"), 1, MANY, Is::Literal),
    rule(AGENT, (CV, "contactPoint"), 1, 1, Is::Class(CV, "ContactPoint")),
    rule(AGENT, (DCT, "type"), 0, MANY, Is::Term(PUBLISHER_TYPE.scheme)),
    rule((CV, "ContactPoint"), (CV, "email"), 0, MANY, Is::Literal),
    rule((CV, "ContactPoint"), (CV, "contactPage"), 0, MANY, Is::Address),
    rule((VCARD, "Kind"), (VCARD, "hasEmail"), 0, 1, Is::Address),
    rule((VCARD, "Kind"), (VCARD, "hasURL"), 0, 1, Is::Address),
    rule((DCT, "ProvenanceStatement"), (RDFS, "label"), 1, MANY, Is::Literal),
    rule((DCAT, "Distribution"), (DCAT, "accessURL"), 1, MANY, Is::Address),
    rule((DCAT, "Distribution"), (DCATAP, "applicableLegislation"), 1, MANY, Is::Address),
    rule((CSVW, "TableGroup"), (CSVW, "table"), 1, MANY, Is::Class(CSVW, "Table")),
    rule((CSVW, "TableGroup"), (DCT, "title"), 1, MANY, Is::Literal),
    rule((CSVW, "Table"), (DCT, "title"), 1, MANY, Is::Literal),
    rule((CSVW, "Table"), (CSVW, "column"), 1, MANY, Is::Class(CSVW, "Column")),
    rule((CSVW, "Column"), (CSVW, "name"), 1, 1, Is::Literal),
    rule((CSVW, "Column"), (CSVW, "title"), 1, MANY, Is::Literal),
    rule((CSVW, "Column"), (CSVW, "datatype"), 1, 1, Is::Literal),
    rule((CSVW, "Column"), (DCT, "description"), 1, MANY, Is::Literal),
    rule((SKOS, "Concept"), (SKOS, "prefLabel"), 1, MANY, Is::Literal),
    rule((SKOS, "Concept"), (SKOS, "inScheme"), 1, MANY, Is::Class(SKOS, "ConceptScheme")),
    rule((SKOS, "ConceptScheme"), (DCT, "title"), 1, MANY, Is::Literal),
];

/// Of these two at least one: how somebody is reached.
const EITHER: [(&str, &str, &str, &str); 2] =
    [(CV, "ContactPoint", "email", "contactPage"), (VCARD, "Kind", "hasEmail", "hasURL")];

/// What of the release's rules `triples` break, each named; nothing when the description is complete.
pub fn violations(triples: &[Triple]) -> Vec<String> {
    let graph: Graph = triples.iter().cloned().collect();
    let mut found = Vec::new();
    let sets = graph.subjects_for_predicate_object(rdf::TYPE, &node(DATASET)).count();
    if sets != 1 {
        found.push(format!("there are {sets} of dcat:Dataset; one description has one"));
    }
    if graph.subjects_for_predicate_object(rdf::TYPE, &node((DCAT, "Catalog"))).next().is_some() {
        found.push("there is a dcat:Catalog; a description has none".into());
    }
    for rule in RULES {
        for subject in graph.subjects_for_predicate_object(rdf::TYPE, &node(rule.class)) {
            check(&graph, rule, subject, &mut found);
        }
    }
    for (namespace, class, one, other) in EITHER {
        for subject in graph.subjects_for_predicate_object(rdf::TYPE, &node((namespace, class))) {
            let there = |name| graph.object_for_subject_predicate(subject, &node((namespace, name))).is_some();
            if !there(one) && !there(other) {
                found.push(format!("{subject} needs {one} or {other}"));
            }
        }
    }
    let non_public = format!("{}/NON_PUBLIC", ACCESS_RIGHT.scheme);
    let theme = format!("{}/HEAL", THEME.scheme);
    for ((namespace, name), wanted) in [((DCT, "accessRights"), non_public), ((DCAT, "theme"), theme)] {
        let path = node((namespace, name));
        let has =
            |s| graph.objects_for_subject_predicate(s, &path).any(|o| o == NamedNodeRef::new_unchecked(&wanted).into());
        if !graph.subjects_for_predicate_object(rdf::TYPE, &node(DATASET)).all(has) {
            found.push(format!("{name} must be <{wanted}>"));
        }
    }
    found
}

fn check(graph: &Graph, rule: &Rule, subject: NamedOrBlankNodeRef<'_>, found: &mut Vec<String>) {
    let name = rule.path.1;
    let path = node(rule.path);
    let objects: Vec<TermRef<'_>> = graph.objects_for_subject_predicate(subject, &path).collect();
    if objects.len() < rule.least || objects.len() > rule.most {
        let most = if rule.most == MANY { "or more".into() } else { format!("to {}", rule.most) };
        found.push(format!("{subject} has {} of {name}; {} {most} must be there", objects.len(), rule.least));
    }
    if let Some(wrong) = objects.into_iter().find(|object| !is(graph, *object, rule.is)) {
        found.push(format!("{subject}: {name} {wrong} is not of the kind that it must be"));
    }
}

fn is(graph: &Graph, object: TermRef<'_>, wanted: Is) -> bool {
    let typed = |object: TermRef<'_>, class: NamedNode| match object {
        TermRef::NamedNode(n) => graph.objects_for_subject_predicate(n, rdf::TYPE).any(|c| c == class.as_ref().into()),
        TermRef::BlankNode(n) => graph.objects_for_subject_predicate(n, rdf::TYPE).any(|c| c == class.as_ref().into()),
        TermRef::Literal(_) => false,
    };
    match wanted {
        Is::Literal => matches!(object, TermRef::Literal(_)),
        Is::Typed(xml) => {
            matches!(object, TermRef::Literal(l) if l.datatype().as_str().strip_prefix(XSD) == Some(xml))
        }
        Is::Address => matches!(object, TermRef::NamedNode(_)),
        Is::Class(namespace, name) => typed(object, node((namespace, name))),
        Is::Term(scheme) => {
            let (path, scheme) = (node((SKOS, "inScheme")), NamedNodeRef::new_unchecked(scheme));
            matches!(object, TermRef::NamedNode(n)
                if graph.objects_for_subject_predicate(n, &path).any(|s| s == scheme.into()))
        }
    }
}

fn node((namespace, name): (&str, &str)) -> NamedNode {
    NamedNode::new_unchecked(format!("{namespace}{name}"))
}
