//! Files that only assign literals, which most are: their variables can be read off, without an evaluator. Making one ready costs more than all the rest of
//! creating a small guest.

use super::parse::{Evaluation, Given, Parsed};
use super::value::{MAX_DEPTH, Value};
use starlark_syntax::syntax::AstModule;
use starlark_syntax::syntax::ast::{AssignTargetP, AstExpr, AstLiteral, AstStmt, ExprP, StmtP};
use std::collections::BTreeMap;

/// The constants of the language. They can be assigned to as well, which is left to the evaluator.
const CONSTANTS: [&str; 3] = ["None", "True", "False"];

/// What comes out of a file; `None` when it takes an evaluator to know.
pub fn evaluation(parsed: Parsed) -> Option<Evaluation> {
    let given: Vec<_> = parsed
        .given
        .into_iter()
        .map(|(name, given)| match given {
            Given::Value(value) if value.is_literal() => Some((name, value)),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let assigned = variables(&parsed.module)?;
    let mut variables: BTreeMap<_, _> = given.iter().cloned().collect();
    variables.extend(assigned);
    Some(Evaluation { variables, given, outline: parsed.outline, output: String::new() })
}

/// The variables of a file, as the evaluator would leave them; `None` when it takes an evaluator to know them.
pub fn variables(module: &AstModule) -> Option<BTreeMap<String, Value>> {
    let mut variables = BTreeMap::new();
    carry_out(module.statement(), &mut variables)?;
    Some(variables)
}

fn carry_out(statement: &AstStmt, variables: &mut BTreeMap<String, Value>) -> Option<()> {
    match &statement.node {
        StmtP::Pass => Some(()),
        // A text that stands alone is a comment.
        StmtP::Expression(expression) => matches!(&expression.node, ExprP::Literal(AstLiteral::String(_))).then_some(()),
        StmtP::Statements(statements) => statements.iter().try_for_each(|statement| carry_out(statement, variables)),
        StmtP::Assign(assign) => {
            let AssignTargetP::Identifier(name) = &assign.lhs.node else { return None };
            let name = &name.node.ident;
            if assign.ty.is_some() || CONSTANTS.contains(&name.as_str()) {
                return None;
            }
            variables.insert(name.clone(), literal(&assign.rhs, 0)?);
            Some(())
        }
        _ => None,
    }
}

fn literal(expression: &AstExpr, depth: u32) -> Option<Value> {
    match &expression.node {
        ExprP::Literal(AstLiteral::String(text)) => Some(Value::Text(text.node.clone())),
        ExprP::Literal(AstLiteral::Float(number)) => Some(Value::Float(number.node)),
        ExprP::Literal(AstLiteral::Int(_)) => integer(expression).map(Value::Integer),
        ExprP::Minus(negated) => integer(negated)?.checked_neg().map(Value::Integer),
        ExprP::Identifier(name) => match name.node.ident.as_str() {
            "None" => Some(Value::None),
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            _ => None,
        },
        ExprP::List(items) | ExprP::Tuple(items) if depth < MAX_DEPTH => items.iter().map(|item| literal(item, depth + 1)).collect::<Option<_>>().map(Value::List),
        _ => None,
    }
}

fn integer(expression: &AstExpr) -> Option<i64> {
    match &expression.node {
        ExprP::Literal(AstLiteral::Int(number)) => number.node.to_string().parse().ok(),
        _ => None,
    }
}
