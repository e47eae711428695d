//! What a file assigns and mentions, and where.

use super::Position;
use starlark_syntax::codemap::{FileSpan, Span};
use starlark_syntax::syntax::AstModule;
use starlark_syntax::syntax::ast::{
    ArgumentP, AssignTargetP, AstExpr, AstLiteral, AstNoPayload, AstStmt, ExprP, StmtP,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where a variable gets its value.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The name in the last assignment.
    pub name: Option<Position>,
    /// The items, when the last assignment is of a list as it stands.
    pub items: Vec<Position>,
}

/// What a file assigns and mentions.
#[derive(Debug, Default)]
pub struct Outline {
    /// The variables that are assigned outside functions.
    pub assigned: BTreeMap<String, Assignment>,
    /// The names that are read somewhere.
    pub read: BTreeSet<String>,
    /// The variables that `xm_vars.var` declares.
    pub declared: BTreeSet<String>,
}

impl Outline {
    /// The outline of a parsed file.
    pub fn new(module: &AstModule) -> Self {
        let mut outline = Self::default();
        outline.statement(module, module.statement(), false);
        outline
    }

    fn statement(&mut self, module: &AstModule, statement: &AstStmt, in_function: bool) {
        match &statement.node {
            StmtP::Assign(assign) if !in_function => {
                self.target(module, &assign.lhs.node, assign.lhs.span, Some(&assign.rhs));
            }
            StmtP::AssignModify(target, _, _) if !in_function => {
                self.target(module, &target.node, target.span, None);
            }
            // What an assignment with an operator adds to is read; that is no use of its own.
            _ => {}
        }
        statement.visit_expr(|expression| self.expression(expression));
        let in_function = in_function || matches!(statement.node, StmtP::Def(_));
        statement
            .node
            .visit_stmt(|inner| self.statement(module, inner, in_function));
    }

    /// A variable, or several, that get a value.
    fn target(
        &mut self,
        module: &AstModule,
        target: &AssignTargetP<AstNoPayload>,
        span: Span,
        value: Option<&AstExpr>,
    ) {
        match target {
            AssignTargetP::Identifier(name) => {
                let place = |span: Span| position(&module.file_span(span));
                let items = match value.map(|value| &value.node) {
                    Some(ExprP::List(items) | ExprP::Tuple(items)) => {
                        items.iter().map(|item| place(item.span)).collect()
                    }
                    _ => Vec::new(),
                };
                let assignment = Assignment {
                    name: Some(place(span)),
                    items,
                };
                self.assigned.insert(name.node.ident.clone(), assignment);
            }
            AssignTargetP::Tuple(targets) => {
                for target in targets {
                    self.target(module, &target.node, target.span, None);
                }
            }
            AssignTargetP::Index(_) | AssignTargetP::Dot(..) => {}
        }
    }

    fn expression(&mut self, expression: &AstExpr) {
        match &expression.node {
            ExprP::Identifier(name) => {
                self.read.insert(name.node.ident.clone());
            }
            ExprP::Call(function, arguments) => {
                let first = arguments.args.first().map(|argument| &argument.node);
                if let (ExprP::Dot(_, name), Some(ArgumentP::Positional(argument))) =
                    (&function.node, first)
                    && name.node == "var"
                    && let ExprP::Literal(AstLiteral::String(variable)) = &argument.node
                {
                    self.declared.insert(variable.node.clone());
                }
            }
            _ => {}
        }
        expression.node.visit_expr(|inner| self.expression(inner));
    }
}

/// Where a span starts.
pub fn position(span: &FileSpan) -> Position {
    let begin = span.resolve_span().begin;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    Position {
        line: count(begin.line),
        column: count(begin.column),
    }
}
