//! One node in this process, with the keys of everybody who signs: for attacks and for benchmarks.
//!
//! Everything a node does is the node's own code; only the network and the other parties' processes are missing, so that
//! whoever holds this can be a hostile coordinator, committee member or researcher, at any hour.

use std::{path::Path, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use miette::{IntoDiagnostic, Result};
use sekisho_node::{
    answer::{Answer, Answering},
    daemon,
    departure::Departure,
    hooks::Hooks,
    permits,
    policy::default_text,
    register::Importing,
};
use sekisho_node_config::{Coordinator, TemplateValues, load, template};
use sekisho_protocol::{
    clock::Clock,
    committee::CommitteeMember,
    digest::Digest,
    dsse::{Document, Envelope},
    key_file,
    keys::SecretKey,
    orders::Regulator,
    permit::Permit,
    query::{Query, Route, RoutedQuery, Terms},
    refusal::Refusal,
    roster::{Member, Role, Roster},
    schema::Schema,
    status::Status,
    transport::peer_id_of_seed,
    turns::{Pace, Turns},
    units::{AttoDelta, MicroRho},
};
use serde_json::{Value, json};

/// The name of the node.
pub const NAME: &str = "solo";

/// What a solo node shall be.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The data sets: each a schema as JSON, and a mapping without the line of the schema.
    pub data: Vec<(&'a str, String)>,
    /// `jp-ngmia` or `eu-ehds`.
    pub register_rule: &'a str,
    /// A register to import.
    pub register: Option<&'a Path>,
    /// Lifetime cap and cap of a query, in micro-rho.
    pub budget: (u64, u64),
}

/// A node and everybody's keys.
pub struct Solo {
    /// The node.
    pub node: Arc<Answering>,
    /// Signs roster, status and schema.
    pub governance: SecretKey,
    /// Two of three make a permit.
    pub committee: [SecretKey; 3],
    /// The coordinator's signing key.
    pub coordinator: SecretKey,
    /// The coordinator's peer id.
    pub coordinator_peer: String,
    /// Signs orders, as `ministry`.
    pub regulator: SecretKey,
    /// May ask.
    pub researcher: SecretKey,
    /// The digests of the data sets' schemas.
    pub schemas: Vec<Digest>,
    roster: Roster,
}

fn key() -> SecretKey {
    SecretKey::generate(&mut rand::rng())
}

impl Solo {
    /// Builds a node in `dir`, with a roster of a year and a status of a day from the clock's hour on.
    ///
    /// # Errors
    /// When something cannot be set up.
    pub async fn build(dir: &Path, plan: &Plan<'_>, clock: Arc<dyn Clock>) -> Result<Self> {
        let now = clock.now();
        let (governance, committee, coordinator, researcher) = (key(), [key(), key(), key()], key(), key());
        let (signing, transport, coordinator_transport, regulator) = (key(), key(), key(), key());
        std::fs::create_dir_all(dir).into_diagnostic()?;
        key_file::write(&dir.join("signing.pem"), &signing).into_diagnostic()?;
        key_file::write(&dir.join("transport.pem"), &transport).into_diagnostic()?;
        let (mut datasets, mut schemas) = (Vec::new(), Vec::new());
        for (i, (schema, mapping)) in plan.data.iter().enumerate() {
            let schema: Schema = serde_json::from_str(schema).into_diagnostic()?;
            let schema = Envelope::sign(&schema, &[&governance]).into_diagnostic()?;
            schemas.push(schema.peek::<Schema>().into_diagnostic()?.1);
            let (file, signed) = (format!("dataset-{i}.toml"), format!("schema-{i}.dsse.json"));
            std::fs::write(dir.join(&signed), schema.to_json()).into_diagnostic()?;
            std::fs::write(dir.join(&file), format!("schema = {signed:?}\n{mapping}")).into_diagnostic()?;
            datasets.push(file);
        }
        let peer = |k: &SecretKey| peer_id_of_seed(&k.seed()).map(|p| p.to_string()).into_diagnostic();
        let member =
            |k: &SecretKey| CommitteeMember { name: "member".into(), role: "ethicist".into(), key: k.public() };
        let mut members: Vec<CommitteeMember> = committee.iter().map(member).collect();
        for (i, member) in members.iter_mut().enumerate() {
            member.name = format!("member-{i}");
        }
        let values = TemplateValues {
            name: NAME.into(),
            state_dir: "state".into(),
            transport_key: "transport.pem".into(),
            signing_key: "signing.pem".into(),
            coordinator: Coordinator { address: "/ip4/127.0.0.1/tcp/1".into(), peer_id: peer(&coordinator_transport)? },
            governance_key: governance.public(),
            committee_quorum: 2,
            committee: members,
            required_roles: Vec::new(),
            distinct_roles: false,
            regulators: vec![Regulator { name: "ministry".into(), key: regulator.public() }],
            register_rule: plan.register_rule.into(),
            datasets,
            budget: Some(plan.budget),
        };
        std::fs::write(dir.join("node.toml"), template(&values)).into_diagnostic()?;
        std::fs::write(dir.join("policy.cedar"), default_text(true)).into_diagnostic()?;
        let roster = Roster {
            seq: 1,
            prev: None,
            issued: now,
            expires: now + Duration::days(365),
            members: vec![
                Member {
                    name: "coordinator".into(),
                    role: Role::Coordinator,
                    peer_id: peer(&coordinator_transport)?,
                    signing_key: coordinator.public(),
                },
                Member {
                    name: NAME.into(),
                    role: Role::Node,
                    peer_id: peer(&transport)?,
                    signing_key: signing.public(),
                },
            ],
        };
        let mut config = load(&dir.join("node.toml")).into_diagnostic()?;
        // This hospital lets permits spend delta, up to the ceilings for patients.
        config.budget.delta_per_query = AttoDelta::try_from(1_000_000_000_000).into_diagnostic()?;
        config.budget.lifetime_delta = AttoDelta::try_from(100_000_000_000_000).into_diagnostic()?;
        let mut node = daemon::answering(&config, &|_| {}, clock, Hooks::default()).await.into_diagnostic()?;
        // An answer within this process need not wait.
        node.departure = Departure::AtOnce;
        // One researcher's key asks for everybody.
        node.turns = Turns::new(Pace::MOST);
        if let Some(register) = plan.register {
            node.register.import_csv(register, &Importing::by("setup", now), &|_| {}).await.into_diagnostic()?;
        }
        let coordinator_peer = peer(&coordinator_transport)?;
        let node = Arc::new(node);
        let solo =
            Self { node, governance, committee, coordinator, coordinator_peer, regulator, researcher, schemas, roster };
        solo.put(&solo.roster(), &[&solo.governance]).await.into_diagnostic()?;
        solo.put(&solo.status(1), &[&solo.governance]).await.into_diagnostic()?;
        Ok(solo)
    }

    /// The node's hour.
    pub fn now(&self) -> DateTime<Utc> {
        self.node.clock.now()
    }

    /// The roster in force.
    pub fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// A status with nothing in it, for a day; it names no predecessor, so leave a gap in `seq`.
    pub fn status(&self, seq: u64) -> Status {
        Status {
            seq,
            prev: None,
            issued: self.now(),
            expires: self.now() + Duration::days(1),
            revoked_permits: Vec::new(),
            permit_versions: Vec::new(),
            suspended_studies: Vec::new(),
            void_keys: Vec::new(),
        }
    }

    /// Signs `document` with `keys` and hands it to the node as the coordinator does.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn put<D: Document>(&self, document: &D, keys: &[&SecretKey]) -> Result<Option<Envelope>, Refusal> {
        permits::put(&self.node, &Envelope::sign(document, keys)?.to_json()).await
    }

    /// A permit for the study `study` over `table` of the first schema, changed by `change`; nothing is signed yet.
    ///
    /// # Errors
    /// When the change leaves no permit.
    pub fn permit(
        &self,
        study: &str,
        table: &str,
        columns: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Permit> {
        let (public, now) = (self.researcher.public(), self.now());
        let mut json = json!({
            "id": study, "version": 1, "basis": "EHDS-69", "issuer": "solo", "study_id": study, "schema": self.schemas[0],
            "decision": {"date": now.date_naive(), "reasons": "a test"}, "purposes": ["scientific_research"],
            "data_user": "solo", "principal_investigator": "solo",
            "authorised_persons": [{"id": "r", "role": "analyst", "key": public, "key_fingerprint": public.fingerprint()}],
            "data": [{"table": table, "columns": columns, "holder_nodes": [NAME]}],
            "allowed_statistics": ["count", "count_distinct", "sum", "avg"], "release_kinds": ["noised"],
            "disclosure": "none",
            "dp": {"rows_per_patient": 5, "groups_per_patient": 2, "sites_per_patient": 1,
                   "micro_rho_per_query": 100_000, "micro_rho_total": 1_000_000, "delta_for_reports": "1e-6"},
            "optout": {"rule": "eu-ehds", "days": 0},
            "validity": {"from": now - Duration::days(1), "to": now + Duration::days(30)},
        });
        change(&mut json);
        serde_json::from_value(json).into_diagnostic()
    }

    /// Signs a permit with two of the committee, hands it in, and returns its digest.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn grant(&self, permit: &Permit) -> Result<Digest, Refusal> {
        let envelope = Envelope::sign(permit, &[&self.committee[0], &self.committee[1]])?;
        permits::put(&self.node, &envelope.to_json()).await?;
        Ok(envelope.peek::<Permit>()?.1)
    }

    /// A question under `permit`, not yet signed.
    pub fn query(&self, permit: Digest, sql: &str, micro_rho: u64, run: u32) -> Query {
        let mut nonce = [0; 16];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut nonce);
        Query {
            permit,
            sql: sql.into(),
            holders: vec![NAME.into()],
            micro_rho: MicroRho::try_from(micro_rho).unwrap_or(MicroRho::ZERO),
            run,
            expires: self.now() + Duration::hours(1),
            nonce: nonce.map(|b| format!("{b:02x}")).concat(),
            terms: Terms::default(),
        }
    }

    /// Signs a query as the researcher and routes it as the coordinator.
    ///
    /// # Errors
    /// When the query breaks its own rules.
    pub fn routed(&self, query: &Query) -> Result<RoutedQuery, Refusal> {
        self.routed_of(&self.researcher, query)
    }

    /// Signs a query as `person` and routes it as the coordinator.
    ///
    /// # Errors
    /// When the query breaks its own rules.
    pub fn routed_of(&self, person: &SecretKey, query: &Query) -> Result<RoutedQuery, Refusal> {
        let query = Envelope::sign(query, &[person])?;
        let (_, digest) = query.peek::<Query>()?;
        let route =
            Route { query: digest, to: NAME.into(), round: "solo".into(), expires: self.now() + Duration::hours(1) };
        Ok(RoutedQuery { query, route: Envelope::sign(&route, &[&self.coordinator])? })
    }

    /// Sends a routed query to the node.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn send(&self, routed: &RoutedQuery) -> Result<Answer, Refusal> {
        self.node.answer(&serde_json::to_vec(routed).unwrap_or_default()).await
    }

    /// Signs, routes and sends a query.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn ask(&self, query: &Query) -> Result<Answer, Refusal> {
        self.send(&self.routed(query)?).await
    }
}
