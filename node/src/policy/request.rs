//! From facts to what Cedar is asked: one principal and context, and an action and a resource at a time.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    error::Error,
    str::FromStr,
};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};
use serde::Serialize;

use super::facts::{Asked, Offered, Organisation, Scope, Study};

/// Why a question cannot be put to Cedar; it is denied then.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// The names of the schema's types.
#[derive(Debug)]
pub(super) struct Types {
    action: EntityTypeName,
    organisation: EntityTypeName,
    user: EntityTypeName,
    data_set: EntityTypeName,
    table: EntityTypeName,
    column: EntityTypeName,
    purpose: EntityTypeName,
    basis: EntityTypeName,
    statistic: EntityTypeName,
    release: EntityTypeName,
    mechanism: EntityTypeName,
}

/// Everything that may be asked of a policy about one query or permit.
pub(super) struct Requests {
    pub(super) entities: Entities,
    pub(super) principal: EntityUid,
    pub(super) context: Context,
    /// The resources with their names for people.
    pub(super) resources: Vec<(String, EntityUid)>,
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.into())
}

/// A number; what does not fit is the greatest, which only ever lets a rule about too much apply.
fn long(number: impl TryInto<i64>) -> RestrictedExpression {
    RestrictedExpression::new_long(number.try_into().unwrap_or(i64::MAX))
}

/// The name of a value of a closed list, as documents write it.
fn name(value: &impl Serialize) -> Result<String, Broken> {
    let json = serde_json::to_value(value)?;
    Ok(json.as_str().ok_or("not a name")?.to_string())
}

fn one(kind: &EntityTypeName, value: &impl Serialize) -> Result<RestrictedExpression, Broken> {
    Ok(RestrictedExpression::new_entity_uid(uid(kind, &name(value)?)))
}

fn many<'a, T: Serialize + 'a>(
    kind: &EntityTypeName,
    values: impl IntoIterator<Item = &'a T>,
) -> Result<RestrictedExpression, Broken> {
    let values: Result<Vec<_>, Broken> = values.into_iter().map(|value| one(kind, value)).collect();
    Ok(RestrictedExpression::new_set(values?))
}

fn entities(uids: impl IntoIterator<Item = EntityUid>) -> RestrictedExpression {
    RestrictedExpression::new_set(uids.into_iter().map(RestrictedExpression::new_entity_uid))
}

impl Types {
    pub(super) fn new() -> Result<Self, Broken> {
        let of = EntityTypeName::from_str;
        Ok(Self {
            action: of("Action")?,
            organisation: of("Organisation")?,
            user: of("DataUser")?,
            data_set: of("DataSet")?,
            table: of("Table")?,
            column: of("Column")?,
            purpose: of("Purpose")?,
            basis: of("Basis")?,
            statistic: of("Statistic")?,
            release: of("ReleaseKind")?,
            mechanism: of("Mechanism")?,
        })
    }

    /// The action called `name`.
    pub(super) fn action(&self, name: &str) -> EntityUid {
        uid(&self.action, name)
    }

    /// Of what kind a literal of a policy is that names something of the hospital's mappings: a data set, table or column.
    pub(super) fn mapped(&self, literal: &EntityUid) -> Option<&'static str> {
        let kind = literal.type_name();
        [(&self.data_set, "data set"), (&self.table, "table"), (&self.column, "column")]
            .into_iter()
            .find_map(|(known, name)| (kind == known).then_some(name))
    }

    /// What is asked about a query.
    pub(super) fn query(&self, asked: &Asked, schema: &Schema) -> Result<Requests, Broken> {
        let organisation = &asked.study.organisation;
        let principal = uid(&self.user, &asked.person.id);
        let mut attributes = organisation_attributes(organisation);
        attributes.insert("person".into(), text(&asked.person.id));
        attributes.insert("role".into(), text(&asked.person.role));
        let member = HashSet::from([uid(&self.organisation, &organisation.name)]);
        let user = Entity::new(principal.clone(), attributes, member)?;
        let mut context = self.context(&asked.study, &asked.scope)?;
        context.extend([
            ("release".to_string(), one(&self.release, &asked.release)?),
            ("microRho".into(), long(asked.micro_rho.get())),
            ("attoDelta".into(), long(asked.atto_delta.get())),
            ("privateKeys".into(), RestrictedExpression::new_bool(!asked.atto_delta.is_zero())),
        ]);
        self.requests(principal, Some(user), context, &asked.study, &asked.scope, schema)
    }

    /// What is asked about a permit.
    pub(super) fn permit(&self, offered: &Offered, schema: &Schema) -> Result<Requests, Broken> {
        let principal = uid(&self.organisation, &offered.study.organisation.name);
        let mut context = self.context(&offered.study, &offered.scope)?;
        context.extend([
            ("releases".to_string(), many(&self.release, &offered.releases)?),
            ("microRhoPerQuery".into(), long(offered.micro_rho_per_query.get())),
            ("microRhoTotal".into(), long(offered.micro_rho_total.get())),
            ("attoDeltaPerQuery".into(), long(offered.atto_delta_per_query.get())),
            ("attoDeltaTotal".into(), long(offered.atto_delta_total.get())),
            ("people".into(), long(offered.people)),
            ("days".into(), long(offered.days)),
            ("listedQueries".into(), RestrictedExpression::new_bool(offered.listed_queries)),
            ("twoPersonReview".into(), RestrictedExpression::new_bool(offered.two_person_review)),
        ]);
        self.requests(principal, None, context, &offered.study, &offered.scope, schema)
    }

    fn context(&self, study: &Study, scope: &Scope) -> Result<Vec<(String, RestrictedExpression)>, Broken> {
        let tables = scope.tables.iter().map(|table| uid(&self.table, table));
        Ok(vec![
            ("permitId".into(), text(&study.permit_id)),
            ("studyId".into(), text(&study.study_id)),
            ("purposes".into(), many(&self.purpose, &study.purposes)?),
            ("basis".into(), one(&self.basis, &study.basis)?),
            ("mechanism".into(), one(&self.mechanism, &study.mechanism)?),
            ("synthetic".into(), RestrictedExpression::new_bool(study.synthetic)),
            ("statistics".into(), many(&self.statistic, &scope.statistics)?),
            ("tables".into(), entities(tables)),
            ("columns".into(), entities(scope.columns.iter().map(|column| self.column(column)))),
        ])
    }

    fn column(&self, (table, column): &(String, String)) -> EntityUid {
        uid(&self.column, &format!("{table}.{column}"))
    }

    /// The resources are the tables and the columns; the data set, the organisation and `user` are there for rules to
    /// look at.
    fn requests(
        &self,
        principal: EntityUid,
        user: Option<Entity>,
        context: Vec<(String, RestrictedExpression)>,
        study: &Study,
        scope: &Scope,
        schema: &Schema,
    ) -> Result<Requests, Broken> {
        let data_set = uid(&self.data_set, &study.data_set);
        let synthetic = HashMap::from([("synthetic".into(), RestrictedExpression::new_bool(study.synthetic))]);
        let name = &study.organisation.name;
        let mut all = vec![
            Entity::new(data_set.clone(), synthetic, HashSet::new())?,
            Entity::new(uid(&self.organisation, name), organisation_attributes(&study.organisation), HashSet::new())?,
        ];
        all.extend(user);
        let mut resources = Vec::new();
        let of_columns = scope.columns.iter().map(|(table, _)| table);
        for table in scope.tables.iter().chain(of_columns).collect::<BTreeSet<_>>() {
            let entity = uid(&self.table, table);
            all.push(Entity::new_no_attrs(entity.clone(), HashSet::from([data_set.clone()])));
            resources.push((table.clone(), entity));
        }
        for column in &scope.columns {
            let entity = self.column(column);
            all.push(Entity::new_no_attrs(entity.clone(), HashSet::from([uid(&self.table, &column.0)])));
            resources.push((format!("{}.{}", column.0, column.1), entity));
        }
        let entities = Entities::from_entities(all, Some(schema))?;
        Ok(Requests { entities, principal, context: Context::from_pairs(context)?, resources })
    }
}

fn organisation_attributes(organisation: &Organisation) -> HashMap<String, RestrictedExpression> {
    let country = organisation.country.iter().map(|country| ("country".to_string(), text(country)));
    [("organisation".to_string(), text(&organisation.name))].into_iter().chain(country).collect()
}
