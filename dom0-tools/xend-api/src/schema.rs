//! The OpenAPI document.

use crate::{
    BlockDevice, Create, Domain, Error, Host, NetworkDevice, Operation, Task, VERSION, Vcpu,
    Version, route,
};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// The interface as an OpenAPI 3 document, made from the types.
pub fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths = Map::new();
    {
        let mut add = |path: String, verbs: Value| {
            paths.insert(path, verbs);
        };
        let schemas = &mut generator;
        add(
            route::VERSION.to_owned(),
            json!({"get": get::<Version>(schemas, "Who answers.", &[])}),
        );
        add(
            route::HOST.to_owned(),
            json!({"get": get::<Host>(schemas, "The host.", &[])}),
        );
        add(
            route::DOMAINS.to_owned(),
            json!({
                "get": get::<Vec<Domain>>(schemas, "All domains.", &[]),
                "post": post::<Create>(schemas, "Creates a guest.", &[("query", "wait")]),
            }),
        );
        add(
            route::HALTED.to_owned(),
            json!({"get": get::<Vec<Domain>>(schemas, "Domains that are known and do not run.", &[])}),
        );
        add(
            placed(route::domain),
            json!({"get": get::<Domain>(schemas, "One domain.", &WHICH)}),
        );
        add(
            placed(route::operations),
            json!({"post": post::<Operation>(schemas, "Does something with a domain.", &[("path", "which"), ("query", "wait")])}),
        );
        add(
            placed(route::vcpus),
            json!({"get": get::<Vec<Vcpu>>(schemas, "Its vCPUs.", &WHICH)}),
        );
        add(
            placed(route::blocks),
            json!({"get": get::<Vec<BlockDevice>>(schemas, "Its disks.", &WHICH)}),
        );
        add(
            placed(route::networks),
            json!({"get": get::<Vec<NetworkDevice>>(schemas, "Its network cards.", &WHICH)}),
        );
        add(
            route::TASKS.to_owned(),
            json!({"get": get::<Vec<Task>>(schemas, "Tasks.", &[])}),
        );
        add(
            format!("{}/{{id}}", route::TASKS),
            json!({"get": get::<Task>(schemas, "One task.", &[("path", "id"), ("query", "after"), ("query", "wait")])}),
        );
        add(
            route::LOG.to_owned(),
            json!({"get": text("The end of the log.", &[("query", "lines")])}),
        );
        add(
            route::METRICS.to_owned(),
            json!({"get": text("Metrics for Prometheus.", &[])}),
        );
    }
    json!({
        "openapi": "3.0.3",
        "info": {"title": "xend", "version": VERSION.to_string()},
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}

/// The parameters of the routes of one domain.
const WHICH: [(&str, &str); 1] = [("path", "which")];

/// A domain's route with its parameter in braces.
fn placed(route: fn(&str) -> String) -> String {
    route("WHICH").replace("WHICH", "{which}")
}

fn get<T: JsonSchema>(
    schemas: &mut SchemaGenerator,
    about: &str,
    parameters: &[(&str, &str)],
) -> Value {
    let schema = schemas.subschema_for::<T>();
    operation(
        schemas,
        about,
        parameters,
        ("200", json!({"application/json": {"schema": schema}})),
    )
}

fn post<T: JsonSchema>(
    schemas: &mut SchemaGenerator,
    about: &str,
    parameters: &[(&str, &str)],
) -> Value {
    let task: Schema = schemas.subschema_for::<Task>();
    let body = schemas.subschema_for::<T>();
    let answer = ("200", json!({"application/json": {"schema": task}}));
    let mut value = operation(schemas, about, parameters, answer);
    if let Some(operation) = value.as_object_mut() {
        let content = json!({"required": true, "content": {"application/json": {"schema": body}}});
        operation.insert("requestBody".to_owned(), content);
    }
    value
}

fn operation(
    schemas: &mut SchemaGenerator,
    about: &str,
    parameters: &[(&str, &str)],
    (status, content): (&str, Value),
) -> Value {
    let error = schemas.subschema_for::<Error>();
    json!({
        "summary": about,
        "parameters": described(parameters),
        "responses": {
            status: {"description": about, "content": content},
            "default": {"description": "A failure.", "content": {"application/json": {"schema": error}}},
        },
    })
}

fn text(about: &str, parameters: &[(&str, &str)]) -> Value {
    json!({
        "summary": about,
        "parameters": described(parameters),
        "responses": {"200": {"description": about, "content": {"text/plain": {"schema": {"type": "string"}}}}},
    })
}

fn described(parameters: &[(&str, &str)]) -> Vec<Value> {
    parameters
        .iter()
        .map(|(place, name)| {
            json!({"name": name, "in": place, "required": *place == "path", "schema": {"type": "string"}})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for reference in text.split("\"$ref\":\"").skip(1) {
            let end = reference.find('"').unwrap();
            let pointer = reference[..end].trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 20, "{references} references");
    }

    #[test]
    fn routes_and_operations_are_described() {
        let document = document();
        let operations = document.pointer("/paths/~1v1~1domains~1{which}~1operations/post");
        assert!(operations.is_some());
        assert!(document.to_string().contains("vcpu-pin"));
    }
}
