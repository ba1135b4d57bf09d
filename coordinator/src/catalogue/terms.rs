//! Namespaces, and the authority lists whose terms a description uses.

/// The namespaces, with the prefixes under which they are written.
pub(super) const PREFIXES: [(&str, &str); 18] = [
    ("csvw", CSVW),
    ("cv", CV),
    ("dcat", DCAT),
    ("dcatap", DCATAP),
    ("dct", DCT),
    ("dpv", DPV),
    ("dqv", DQV),
    ("eli", ELI),
    ("foaf", FOAF),
    ("geodcatap", GEODCATAP),
    ("healthdcatap", HEALTH),
    ("oa", OA),
    ("prov", "http://www.w3.org/ns/prov#"),
    ("rdf", RDF),
    ("rdfs", RDFS),
    ("skos", SKOS),
    ("vcard", VCARD),
    ("xsd", XSD),
];

pub(super) const CSVW: &str = "http://www.w3.org/ns/csvw#";
pub(super) const CV: &str = "http://data.europa.eu/m8g/";
pub(super) const DCAT: &str = "http://www.w3.org/ns/dcat#";
pub(super) const DCATAP: &str = "http://data.europa.eu/r5r/";
pub(super) const DCT: &str = "http://purl.org/dc/terms/";
pub(super) const DPV: &str = "https://w3id.org/dpv#";
pub(super) const DPV_PD: &str = "https://w3id.org/dpv/dpv-pd#";
pub(super) const DQV: &str = "http://www.w3.org/ns/dqv#";
pub(super) const ELI: &str = "http://data.europa.eu/eli/ontology#";
pub(super) const FOAF: &str = "http://xmlns.com/foaf/0.1/";
pub(super) const GEODCATAP: &str = "http://data.europa.eu/930/";
pub(super) const HEALTH: &str = "http://healthdataportal.eu/ns/health#";
pub(super) const OA: &str = "http://www.w3.org/ns/oa#";
pub(super) const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
pub(super) const RDFS: &str = "http://www.w3.org/2000/01/rdf-schema#";
pub(super) const SKOS: &str = "http://www.w3.org/2004/02/skos/core#";
pub(super) const VCARD: &str = "http://www.w3.org/2006/vcard/ns#";
pub(super) const XSD: &str = "http://www.w3.org/2001/XMLSchema#";

/// An authority list: its address, its title, and what its terms are beside concepts.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) scheme: &'static str,
    pub(super) title: &'static str,
    pub(super) class: Option<&'static str>,
}

const fn list(scheme: &'static str, title: &'static str, class: Option<&'static str>) -> List {
    List { scheme, title, class }
}

pub(super) const ACCESS_RIGHT: List = list(
    "http://publications.europa.eu/resource/authority/access-right",
    "Access rights",
    Some("http://purl.org/dc/terms/RightsStatement"),
);
pub(super) const THEME: List = list("http://publications.europa.eu/resource/authority/data-theme", "Data theme", None);
pub(super) const DATASET_TYPE: List =
    list("http://publications.europa.eu/resource/authority/dataset-type", "Dataset type", None);
pub(super) const COUNTRY: List = list(
    "http://publications.europa.eu/resource/authority/country",
    "Country",
    Some("http://purl.org/dc/terms/Location"),
);
pub(super) const LANGUAGE: List = list(
    "http://publications.europa.eu/resource/authority/language",
    "Language",
    Some("http://purl.org/dc/terms/LinguisticSystem"),
);
pub(super) const FREQUENCY: List = list(
    "http://publications.europa.eu/resource/authority/frequency",
    "Frequency",
    Some("http://purl.org/dc/terms/Frequency"),
);
pub(super) const CATEGORY: List = list(
    "https://hdeu-dcat.data.health.europa.eu/resource/authority/healthcategories",
    "Health categories (EHDS Art. 51)",
    None,
);
pub(super) const HEALTH_THEME: List =
    list("https://hdeu-dcat.data.health.europa.eu/resource/authority/health-theme", "Health theme", None);
pub(super) const PUBLISHER_TYPE: List =
    list("https://hdeu-dcat.data.health.europa.eu/resource/authority/publisher-type", "Health publisher types", None);
pub(super) const CODING_SYSTEM: List = list(
    "https://hdeu-dcat.data.health.europa.eu/resource/authority/coding-system",
    "Coding systems",
    Some("http://purl.org/dc/terms/Standard"),
);
pub(super) const STANDARD: List = list(
    "https://hdeu-dcat.data.health.europa.eu/resource/authority/standard",
    "Technical standards",
    Some("http://purl.org/dc/terms/Standard"),
);
