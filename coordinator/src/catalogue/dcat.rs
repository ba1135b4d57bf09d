//! One data set as a HealthDCAT-AP description, release 8, for data that is not public.
//!
//! From <https://healthdataeu.github.io/healthdcat-ap/> (HealthDCAT-AP release 8, CC BY 4.0) over DCAT-AP 3. One `dcat:Dataset`
//! for each description and no `dcat:Catalog`, which a validator would hold to a data set's rules; every term names its scheme;
//! terminologies are coding systems, and only technical standards are conformed to. Every node has an address, so that the same
//! catalogue gives the same bytes.
//!
//! The counts in it are noised and rounded to the size of their noise; that is post-processing.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use oxjsonld::JsonLdSerializer;
use oxrdf::{GraphNameRef, IriParseError, Literal, NamedNode, QuadRef, Term, Triple};
use oxttl::TurtleSerializer;
use sekisho_protocol::{
    catalogue::{Agent, ColumnEntry, Contact, DataSet, Distribution, Estimate, Period, Quality, TableEntry, Text},
    schema::Kind,
};

use super::terms::{
    ACCESS_RIGHT, CATEGORY, CODING_SYSTEM, COUNTRY, CSVW, CV, DATASET_TYPE, DCAT, DCATAP, DCT, DPV, DPV_PD, DQV, ELI,
    FOAF, FREQUENCY, GEODCATAP, HEALTH, HEALTH_THEME, LANGUAGE, List, OA, PREFIXES, PUBLISHER_TYPE, RDF, RDFS, SKOS,
    STANDARD, THEME, VCARD, XSD,
};

/// Why a data set has no description.
#[derive(Debug, thiserror::Error)]
pub enum DcatError {
    /// What a hospital declared is no address.
    #[error("{text:?} is no address that RDF takes: {source}")]
    Address {
        /// What it declared.
        text: String,
        /// What is wrong with it.
        source: IriParseError,
    },
    /// A serializer failed.
    #[error("the description cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// The address of a data set: a name, since nothing is served there.
pub fn address(node: &str, data_set: &str) -> String {
    format!("urn:sekisho:dataset:{node}:{data_set}")
}

/// The triples that describe `set` of the hospital `node`, whose catalogue was signed at `issued`.
///
/// # Errors
/// When an address that the hospital declared is none.
pub fn describe(node: &str, issued: DateTime<Utc>, set: &DataSet) -> Result<Vec<Triple>, DcatError> {
    let mut graph = Graph { base: address(node, &set.id), triples: Vec::new(), seen: HashSet::new() };
    graph.data_set(node, issued, set)?;
    Ok(graph.triples)
}

/// `triples` as Turtle.
///
/// # Errors
/// When they cannot be written.
pub fn turtle(triples: &[Triple]) -> Result<Vec<u8>, DcatError> {
    let mut serializer = TurtleSerializer::new();
    for (prefix, namespace) in PREFIXES {
        serializer = serializer
            .with_prefix(prefix, namespace)
            .map_err(|source| DcatError::Address { text: namespace.into(), source })?;
    }
    let mut writer = serializer.for_writer(Vec::new());
    for triple in triples {
        writer.serialize_triple(triple)?;
    }
    Ok(writer.finish()?)
}

/// `triples` as JSON-LD.
///
/// # Errors
/// When they cannot be written.
pub fn jsonld(triples: &[Triple]) -> Result<Vec<u8>, DcatError> {
    let mut serializer = JsonLdSerializer::new();
    for (prefix, namespace) in PREFIXES {
        serializer = serializer
            .with_prefix(prefix, namespace)
            .map_err(|source| DcatError::Address { text: namespace.into(), source })?;
    }
    let mut writer = serializer.for_writer(Vec::new());
    for triple in triples {
        let subject = triple.subject.as_ref();
        writer.serialize_quad(QuadRef::new(
            subject,
            &triple.predicate,
            triple.object.as_ref(),
            GraphNameRef::DefaultGraph,
        ))?;
    }
    Ok(writer.finish()?)
}

fn named(text: &str) -> Result<NamedNode, DcatError> {
    NamedNode::new(text).map_err(|source| DcatError::Address { text: text.into(), source })
}

fn typed(value: impl Into<String>, datatype: &str) -> Term {
    Literal::new_typed_literal(value.into(), NamedNode::new_unchecked(format!("{XSD}{datatype}"))).into()
}

fn tagged(tag: &str, words: &str) -> Term {
    // `ja` and `en` are language tags.
    Literal::new_language_tagged_literal_unchecked(words, tag).into()
}

fn english(words: &str) -> Term {
    tagged("en", words)
}

struct Graph {
    base: String,
    triples: Vec<Triple>,
    seen: HashSet<Triple>,
}

impl Graph {
    fn add(&mut self, subject: &NamedNode, namespace: &str, name: &str, object: impl Into<Term>) {
        let predicate = NamedNode::new_unchecked(format!("{namespace}{name}"));
        let triple = Triple::new(subject.clone(), predicate, object);
        if self.seen.insert(triple.clone()) {
            self.triples.push(triple);
        }
    }

    fn class(&mut self, subject: &NamedNode, namespace: &str, name: &str) {
        self.add(subject, RDF, "type", NamedNode::new_unchecked(format!("{namespace}{name}")));
    }

    fn text(&mut self, subject: &NamedNode, namespace: &str, name: &str, text: &Text) {
        for (tag, words) in text.words() {
            self.add(subject, namespace, name, tagged(tag, words));
        }
    }

    /// A node of this description.
    fn part(&self, name: &str) -> Result<NamedNode, DcatError> {
        named(&format!("{}#{name}", self.base))
    }

    /// A term of an authority list, with its scheme.
    fn term(&mut self, list: List, code: &str) -> Result<NamedNode, DcatError> {
        let (scheme, term) = (named(list.scheme)?, named(&format!("{}/{code}", list.scheme))?);
        self.class(&term, SKOS, "Concept");
        if let Some(class) = list.class {
            self.class(&term, class, "");
        }
        self.add(&term, SKOS, "prefLabel", english(code));
        self.add(&term, SKOS, "inScheme", scheme.clone());
        self.class(&scheme, SKOS, "ConceptScheme");
        self.add(&scheme, DCT, "title", english(list.title));
        Ok(term)
    }

    fn terms(
        &mut self,
        subject: &NamedNode,
        (namespace, name): (&str, &str),
        list: List,
        codes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), DcatError> {
        for code in codes {
            let term = self.term(list, code.as_ref())?;
            self.add(subject, namespace, name, term);
        }
        Ok(())
    }

    fn data_set(&mut self, node: &str, issued: DateTime<Utc>, set: &DataSet) -> Result<(), DcatError> {
        let (this, said) = (named(&self.base)?, &set.declared);
        self.class(&this, DCAT, "Dataset");
        self.text(&this, DCT, "title", &said.title);
        self.text(&this, DCT, "description", &said.description);
        self.add(&this, DCT, "identifier", Literal::new_simple_literal(format!("{node}/{}", set.id)));
        self.add(&this, DCT, "modified", typed(issued.date_naive().to_string(), "date"));
        self.terms(&this, (DCT, "accessRights"), ACCESS_RIGHT, ["NON_PUBLIC"])?;
        for (tag, word) in said.keywords.words() {
            self.add(&this, DCAT, "keyword", tagged(tag, word));
        }
        self.terms(&this, (DCAT, "theme"), THEME, ["HEAL"])?;
        self.terms(&this, (HEALTH, "healthCategory"), CATEGORY, &said.health_categories)?;
        self.terms(&this, (HEALTH, "healthTheme"), HEALTH_THEME, &said.health_themes)?;
        self.terms(&this, (DCT, "type"), DATASET_TYPE, &said.types)?;
        if set.synthetic {
            self.terms(&this, (DCT, "type"), DATASET_TYPE, ["SYNTHETIC_DATA"])?;
        }
        self.terms(&this, (DCT, "spatial"), COUNTRY, &said.spatial)?;
        self.terms(&this, (DCT, "language"), LANGUAGE, &said.languages)?;
        self.terms(&this, (DCT, "accrualPeriodicity"), FREQUENCY, &said.frequency)?;
        let columns = set.tables.iter().flat_map(|table| &table.columns).filter_map(|c| c.code_system.as_ref());
        let systems: BTreeSet<_> = said.coding_systems.iter().chain(columns).collect();
        self.terms(&this, (HEALTH, "hasCodingSystem"), CODING_SYSTEM, systems)?;
        self.terms(&this, (DCT, "conformsTo"), STANDARD, &said.conforms_to)?;
        self.legislation(&this, &said.legislation)?;
        self.agent(&this, (HEALTH, "hdab"), "hdab", &said.hdab)?;
        self.agent(&this, (GEODCATAP, "custodian"), "custodian", &said.custodian)?;
        self.agent(&this, (DCT, "publisher"), "publisher", &said.publisher)?;
        self.contact(&this, &said.contact)?;
        let provenance = self.part("provenance")?;
        self.add(&this, DCT, "provenance", provenance.clone());
        self.class(&provenance, DCT, "ProvenanceStatement");
        self.text(&provenance, RDFS, "label", &said.provenance);
        self.distribution(&this, "distribution", (DCAT, "distribution"), &said.distribution, &said.legislation)?;
        for (i, page) in said.analytics.iter().enumerate() {
            let title = Text { ja: "分析結果".into(), en: "Analytics".into() };
            let report = Distribution { title, access_url: page.clone() };
            self.distribution(&this, &format!("analytics-{i}"), (HEALTH, "analytics"), &report, &said.legislation)?;
        }
        self.words(&this, "legal-basis", (DPV, "hasLegalBasis"), "LegalBasis", &said.legal_basis)?;
        self.words(&this, "purpose", (DPV, "hasPurpose"), "Purpose", &said.purposes)?;
        for code in &said.personal_data {
            let kind = named(&format!("{DPV_PD}{code}"))?;
            self.add(&this, DPV, "hasPersonalData", kind.clone());
            self.class(&kind, DPV, "PersonalData");
        }
        for page in &said.pages {
            let page = named(page)?;
            self.add(&this, FOAF, "page", page.clone());
            self.class(&page, FOAF, "Document");
        }
        self.period(&this, (DCT, "temporal"), "temporal", said.temporal)?;
        self.period(&this, (HEALTH, "retentionPeriod"), "retention", said.retention)?;
        for (name, age) in [("minTypicalAge", said.min_age), ("maxTypicalAge", said.max_age)] {
            if let Some(age) = age {
                self.add(&this, HEALTH, name, typed(age.to_string(), "nonNegativeInteger"));
            }
        }
        if let Some(coverage) = &said.population_coverage {
            self.text(&this, HEALTH, "populationCoverage", coverage);
        }
        if let Some(quality) = &said.quality {
            self.quality(&this, quality)?;
        }
        self.counts(&this, set);
        self.add(&this, HEALTH, "hasStructuredData", typed("true", "boolean"));
        self.variables(&this, set)
    }

    fn legislation(&mut self, subject: &NamedNode, laws: &[String]) -> Result<(), DcatError> {
        for law in laws {
            let law = named(law)?;
            self.add(subject, DCATAP, "applicableLegislation", law.clone());
            self.class(&law, ELI, "LegalResource");
        }
        Ok(())
    }

    fn agent(
        &mut self,
        subject: &NamedNode,
        (namespace, name): (&str, &str),
        part: &str,
        agent: &Agent,
    ) -> Result<(), DcatError> {
        let this = self.part(part)?;
        self.add(subject, namespace, name, this.clone());
        self.class(&this, FOAF, "Agent");
        self.text(&this, FOAF, "name", &agent.name);
        self.terms(&this, (DCT, "type"), PUBLISHER_TYPE, &agent.kind)?;
        let point = self.part(&format!("{part}-contact"))?;
        self.add(&this, CV, "contactPoint", point.clone());
        self.class(&point, CV, "ContactPoint");
        if let Some(email) = &agent.email {
            self.add(&point, CV, "email", Literal::new_simple_literal(email));
        }
        if let Some(page) = &agent.page {
            self.add(&point, CV, "contactPage", named(page)?);
        }
        Ok(())
    }

    fn contact(&mut self, subject: &NamedNode, contact: &Contact) -> Result<(), DcatError> {
        let this = self.part("contact")?;
        self.add(subject, DCAT, "contactPoint", this.clone());
        self.class(&this, VCARD, "Kind");
        self.text(&this, VCARD, "fn", &contact.name);
        if let Some(email) = &contact.email {
            self.add(&this, VCARD, "hasEmail", named(&format!("mailto:{email}"))?);
        }
        if let Some(page) = &contact.page {
            self.add(&this, VCARD, "hasURL", named(page)?);
        }
        Ok(())
    }

    fn distribution(
        &mut self,
        subject: &NamedNode,
        part: &str,
        (namespace, name): (&str, &str),
        distribution: &Distribution,
        laws: &[String],
    ) -> Result<(), DcatError> {
        let this = self.part(part)?;
        self.add(subject, namespace, name, this.clone());
        self.class(&this, DCAT, "Distribution");
        self.text(&this, DCT, "title", &distribution.title);
        self.add(&this, DCAT, "accessURL", named(&distribution.access_url)?);
        self.legislation(&this, laws)
    }

    fn words(
        &mut self,
        subject: &NamedNode,
        part: &str,
        (namespace, name): (&str, &str),
        class: &str,
        texts: &[Text],
    ) -> Result<(), DcatError> {
        for (i, text) in texts.iter().enumerate() {
            let this = self.part(&format!("{part}-{i}"))?;
            self.add(subject, namespace, name, this.clone());
            self.class(&this, DPV, class);
            self.text(&this, DCT, "description", text);
        }
        Ok(())
    }

    fn period(
        &mut self,
        subject: &NamedNode,
        (namespace, name): (&str, &str),
        part: &str,
        period: Option<Period>,
    ) -> Result<(), DcatError> {
        let Some(period) = period else { return Ok(()) };
        let this = self.part(part)?;
        self.add(subject, namespace, name, this.clone());
        self.class(&this, DCT, "PeriodOfTime");
        self.add(&this, DCAT, "startDate", typed(period.from.to_string(), "date"));
        if let Some(to) = period.to {
            self.add(&this, DCAT, "endDate", typed(to.to_string(), "date"));
        }
        Ok(())
    }

    fn quality(&mut self, subject: &NamedNode, quality: &Quality) -> Result<(), DcatError> {
        let this = self.part("quality")?;
        self.add(subject, DQV, "hasQualityAnnotation", this.clone());
        self.class(&this, DQV, "QualityCertificate");
        self.add(&this, OA, "hasTarget", subject.clone());
        self.add(&this, OA, "motivatedBy", named(&format!("{DQV}qualityAssessment"))?);
        if let Some(page) = &quality.certificate {
            self.add(&this, OA, "hasBody", named(page)?);
        }
        for (heading, text) in quality.headings() {
            let body = self.part(&format!("quality-{heading}"))?;
            self.add(&this, OA, "hasBody", body.clone());
            self.class(&body, OA, "TextualBody");
            self.add(&body, DCT, "title", english(heading));
            self.text(&body, RDF, "value", text);
        }
        Ok(())
    }

    /// Records are summed over the tables. Of the tables' individuals the greatest number is given: patients are in several
    /// tables, and how many there are in all of them together was not counted.
    fn counts(&mut self, this: &NamedNode, set: &DataSet) {
        let counts: Vec<_> = set.tables.iter().filter_map(|table| table.counts.as_ref()).collect();
        let most = counts.iter().map(|c| c.individuals).max_by_key(|e| e.estimate);
        let records = counts.iter().map(|c| c.records).reduce(|a, b| Estimate {
            estimate: a.estimate.max(0).saturating_add(b.estimate.max(0)),
            // At least the standard deviation of the sum.
            standard_deviation: a.standard_deviation.saturating_add(b.standard_deviation),
        });
        for (name, estimate) in [("numberOfRecords", records), ("numberOfUniqueIndividuals", most)] {
            if let Some(estimate) = estimate {
                self.add(this, HEALTH, name, typed(rounded(estimate).to_string(), "nonNegativeInteger"));
            }
        }
    }

    fn variables(&mut self, subject: &NamedNode, set: &DataSet) -> Result<(), DcatError> {
        let group = self.part("variables")?;
        self.add(subject, HEALTH, "hasVariables", group.clone());
        self.class(&group, CSVW, "TableGroup");
        self.text(&group, DCT, "title", &set.declared.title);
        for table in &set.tables {
            let this = self.part(&format!("table-{}", table.name))?;
            self.add(&group, CSVW, "table", this.clone());
            self.class(&this, CSVW, "Table");
            match &table.title {
                Some(title) => self.text(&this, DCT, "title", title),
                None => self.add(&this, DCT, "title", english(&table.name)),
            }
            if let Some(description) = &table.description {
                self.text(&this, DCT, "description", description);
            }
            for column in &table.columns {
                self.column(&this, table, column)?;
            }
        }
        Ok(())
    }

    fn column(&mut self, parent: &NamedNode, table: &TableEntry, entry: &ColumnEntry) -> Result<(), DcatError> {
        let name = &entry.column.name;
        let this = self.part(&format!("column-{}-{name}", table.name))?;
        self.add(parent, CSVW, "column", this.clone());
        self.class(&this, CSVW, "Column");
        self.add(&this, CSVW, "name", Literal::new_simple_literal(name));
        match &entry.title {
            Some(title) => self.text(&this, CSVW, "title", title),
            None => self.add(&this, CSVW, "title", english(name)),
        }
        let datatype = match entry.column.kind {
            Kind::Int64 => "integer",
            Kind::Decimal => "decimal",
            Kind::Text => "string",
            Kind::Date => "date",
            Kind::Bool => "boolean",
        };
        self.add(&this, CSVW, "datatype", Literal::new_simple_literal(datatype));
        match &entry.description {
            Some(description) => self.text(&this, DCT, "description", description),
            None => self.add(&this, DCT, "description", english(&plain(entry))),
        }
        let completeness = table.counts.as_ref().and_then(|counts| counts.completeness(name));
        if let Some(completeness) = completeness {
            let (measurement, metric) =
                (self.part(&format!("completeness-{}-{name}", table.name))?, named("urn:sekisho:metric:completeness")?);
            self.add(&this, DQV, "hasQualityMeasurement", measurement.clone());
            self.class(&measurement, DQV, "QualityMeasurement");
            self.add(&measurement, DQV, "isMeasurementOf", metric.clone());
            self.add(&measurement, DQV, "value", typed(format!("{:.3}", completeness.share), "decimal"));
            self.class(&metric, DQV, "Metric");
            let definition = "Share of the records that have a value, estimated with noise";
            self.add(&metric, SKOS, "definition", english(definition));
        }
        Ok(())
    }
}

/// What is known of a column that nobody described.
fn plain(entry: &ColumnEntry) -> String {
    let column = &entry.column;
    let mut text = column.name.replace('_', " ");
    if let Some(unit) = &column.unit {
        text.push_str(&format!(", in {unit}"));
    }
    if let Some(bounds) = entry.extremes.as_ref().or(column.bounds.as_ref()) {
        text.push_str(&format!(", {} to {}", bounds.min, bounds.max));
    }
    if let Some(domain) = column.domain.as_ref().filter(|domain| domain.len() <= 20) {
        text.push_str(&format!(": {}", domain.join(", ")));
    }
    text
}

/// A noised count without the digits that are noise: to the power of ten below its standard deviation, never negative.
fn rounded(estimate: Estimate) -> u64 {
    let count = u64::try_from(estimate.estimate.max(0)).unwrap_or(0);
    let step = 10_u64.saturating_pow(estimate.standard_deviation.max(1).ilog10());
    count.saturating_add(step / 2) / step * step
}
