//! Conditions: CEL behind a type of our own, so that nothing else depends on the interpreter.
//!
//! A condition is written by the operator; the values it meets are written by whoever causes events. So all that can be
//! wrong with the text is found when it is compiled, and what a value can do is bounded: strings, lists and depth are cut
//! in [`Facts`], comprehensions nest at most twice, and regular expressions (which run in linear time) come only from the
//! condition itself, never from an event. What it asks of the past is known before any event, too ([`past`]).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::extractors::Arguments;
use cel::{Context, Env, ExecutionError, Program};
use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;

use super::CompileError;
use super::facts::{EVENT, Fact, FactSet, Facts, STEPS, cut};
use super::past::{self, ASKING, Question, TIMELY};
use super::shape::{Place, Shape};

/// The longest condition, in bytes.
pub const MAX_CONDITION: usize = 4 * 1024;

/// How deep comprehensions (`exists`, `all`, `map`, `filter`) may nest.
pub const MAX_NESTING: usize = 2;

/// The longest regular expression, in bytes.
const MAX_REGEX: usize = 256;

/// The most that one condition may ask of the past.
const MAX_QUESTIONS: usize = 16;

/// How deep the expression itself may be; evaluation recurses this far.
const MAX_EXPRESSION_DEPTH: usize = 64;

/// The functions a condition may call, besides operators. Each is linear in its input.
const FUNCTIONS: [&str; 10] =
    ["size", "contains", "startsWith", "endsWith", "matches", "string", "int", "uint", "double", "type"];

/// The names of types, for `type(x) == string`.
const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

/// A compiled condition.
pub struct Condition {
    text: String,
    program: Program,
    names: BTreeSet<&'static str>,
    steps: BTreeSet<String>,
    questions: BTreeSet<Question>,
    /// Whether it looks at the event's own time.
    timely: bool,
    /// The fields of the event that it reads; `None` when it reads the event as a whole.
    event_fields: Option<BTreeSet<String>>,
    /// The ways to the values that it reads, such as `risk.level`; none of them leads through another.
    paths: BTreeSet<String>,
}

/// A condition that gave no answer for these facts.
#[derive(Debug, Error)]
pub enum ConditionError {
    /// It needs a fact that could not be had.
    #[error("the fact `{fact}` is not known: {why}")]
    MissingFact {
        /// The fact.
        fact: Fact,
        /// Why it is not known.
        why: String,
    },
    /// It reads a field that this event doesn't have.
    #[error("there is no field `{field}` here; ask for it first with has(…)")]
    NoSuchField {
        /// The field.
        field: String,
    },
    /// It answered with something other than true or false.
    #[error("the answer is a {got}, not true or false; compare it with something")]
    NotBool {
        /// The type of the answer.
        got: String,
    },
    /// Anything else, such as comparing a text with a number.
    #[error("it cannot be evaluated: {detail}")]
    Failed {
        /// What the interpreter says, cut.
        detail: String,
    },
}

impl Condition {
    /// Compiles a condition; whatever can be wrong without an event is found here.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        if text.len() > MAX_CONDITION {
            let message = format!("the condition has {} bytes, more than {MAX_CONDITION}", text.len());
            return Err(CompileError::new(message, "split the step or the playbook"));
        }
        let program = ENV.compile(text).map_err(|errors| {
            let first = errors.errors.first().map_or("not understood", |error| error.msg.as_str());
            let message = format!("`{}` is not a CEL expression: {}", cut(text, 200), cut(first, 300));
            CompileError::new(message, "write something like risk.level == \"HIGH\"")
        })?;
        let mut walk = Walk::default();
        walk.visit(program.expression(), 0, 0)?;
        let Walk { names, steps, questions, timely, event_fields, whole_event, paths, .. } = walk;
        if questions.len() > MAX_QUESTIONS {
            let message = format!("the condition asks more than {MAX_QUESTIONS} things of the past");
            return Err(CompileError::new(message, "divide it among steps"));
        }
        check_answers(program.expression(), &sample(&names, &steps))?;
        let event_fields = Some(event_fields).filter(|_| !whole_event);
        let leads_on =
            |path: &str| paths.iter().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
        let paths = paths.iter().filter(|path| !leads_on(path)).cloned().collect();
        Ok(Self { text: text.to_owned(), program, names, steps, questions, timely, event_fields, paths })
    }

    /// The condition as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The facts it names.
    pub fn facts_named(&self) -> FactSet {
        let named: FactSet = self.names.iter().filter_map(|name| Fact::parse(name)).collect();
        let past: FactSet = self.questions.iter().take(1).map(|_| Fact::Past).collect();
        named.union(past)
    }

    /// The facts it names that nobody has asked for yet. Of the past that is so also where something else was asked.
    pub fn facts_open(&self, facts: &Facts) -> FactSet {
        let mut open = facts.not_fetched(self.facts_named());
        if facts.reason_missing(Fact::Past).is_none() && self.questions_open(facts).next().is_some() {
            open.insert(Fact::Past);
        }
        open
    }

    /// What it asks of the past and nobody has asked yet.
    pub fn questions_open(&self, facts: &Facts) -> impl Iterator<Item = String> {
        self.questions.iter().map(Question::to_string).filter(|question| facts.answer(question).is_none())
    }

    /// What it asks of the past.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter()
    }

    /// Whether it reads what other steps did.
    pub fn names_steps(&self) -> bool {
        self.names.contains(STEPS)
    }

    /// Which steps it reads, as identifiers (see [`step_identifier`](super::facts::step_identifier)).
    pub fn steps_named(&self) -> &BTreeSet<String> {
        &self.steps
    }

    /// What it reads, and what stands there: for people who wonder about an answer. Where the way ends before its end, it is
    /// told how far it leads.
    pub fn values_read(&self, facts: &Facts) -> Vec<(String, Value)> {
        let read = |path: &String| {
            let mut parts = path.split('.');
            let mut way = parts.next()?.to_owned();
            let mut value = facts.value(&way)?;
            for part in parts {
                let Value::Object(mut object) = value else { break };
                way = format!("{way}.{part}");
                value = object.remove(part).unwrap_or_default();
            }
            Some((way, value))
        };
        let answer = |question: &Question| {
            let question = question.to_string();
            let answer = facts.answer(&question)?.clone();
            Some((question, answer))
        };
        self.paths.iter().filter_map(read).chain(self.questions.iter().filter_map(answer)).collect()
    }

    /// Answers the condition. Only what it names is handed to the interpreter: of the event, which is large and mostly
    /// not asked about, only the fields that it reads.
    pub fn evaluate(&self, facts: &Facts) -> Result<bool, ConditionError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for name in &self.names {
            let value = match &self.event_fields {
                Some(fields) if *name == EVENT => facts.event_part(fields),
                _ => facts.value(name),
            };
            if let Some(value) = value {
                context.add_variable_from_value(*name, to_cel(value));
            }
        }
        if !self.questions.is_empty() {
            let told = |question: &Question| {
                let question = question.to_string();
                let answer = facts.answer(&question)?.clone();
                Some((question, answer))
            };
            let answers = self.questions.iter().filter_map(told).collect();
            let missing = facts.reason_missing(Fact::Past).unwrap_or("it has not been asked").to_owned();
            add_asking(&mut context, Answers::Known(answers, missing));
        }
        if self.timely {
            add_timely(&mut context, facts.moment());
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(answer)) => Ok(answer),
            Ok(other) => Err(ConditionError::NotBool { got: other.type_of().to_string() }),
            Err(error) => Err(explain(error, facts)),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

/// What the functions that ask the past answer.
#[derive(Clone)]
enum Answers {
    /// What the inbox said, by question; and why one that is not there is not known.
    Known(HashMap<String, Value>, String),
    /// Anything of the right type: only the form of a condition is looked at.
    Sample,
}

impl Answers {
    fn of(&self, function: &str, arguments: &[cel::Value]) -> Result<cel::Value, ExecutionError> {
        let arguments: Vec<_> = arguments.iter().cloned().map(Some).collect();
        let failed = |why: &str| ExecutionError::function_error(function, why);
        let question = Question::of(function, &arguments).map_err(|error| failed(&error.message))?;
        match self {
            Self::Sample => Ok(to_cel(question.answer(Ok(0)))),
            Self::Known(answers, missing) => match answers.get(&question.to_string()) {
                Some(Value::Null) => Err(failed("the event does not tell what to look for")),
                Some(answer) => Ok(to_cel(answer.clone())),
                None => Err(failed(&format!("the past is not known: {missing}"))),
            },
        }
    }
}

fn add_asking(context: &mut Context<'_, '_>, answers: Answers) {
    let answers = Arc::new(answers);
    for function in ASKING {
        let answers = Arc::clone(&answers);
        // Refused only for a name of the standard library.
        let _ = context.add_function(function, move |Arguments(arguments): Arguments| answers.of(function, &arguments));
    }
}

/// The functions that look at the event's own time, or at that for which they are asked.
fn add_timely(context: &mut Context<'_, '_>, moment: Option<Timestamp>) {
    for function in TIMELY {
        let _ = context.add_function(function, move |Arguments(arguments): Arguments| {
            let failed = |why: &str| ExecutionError::function_error(function, why);
            let at = moment.ok_or_else(|| failed("there is no event"))?;
            past::timely(function, &arguments, at).map_err(|why| failed(&why))
        });
    }
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

fn explain(error: ExecutionError, facts: &Facts) -> ConditionError {
    match error {
        ExecutionError::UndeclaredReference(name) => match Fact::parse(&name) {
            Some(fact) => {
                let why = facts.reason_missing(fact).unwrap_or("it has not been asked for").to_owned();
                ConditionError::MissingFact { fact, why }
            }
            None => ConditionError::Failed { detail: format!("`{}` is not known", cut(&name, 100)) },
        },
        ExecutionError::NoSuchKey(field) => ConditionError::NoSuchField { field: cut(&field, 100).to_owned() },
        other => {
            let detail = other.to_string().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
            ConditionError::Failed { detail }
        }
    }
}

fn to_cel(value: Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => flag.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => cel::Value::Int(int),
            (None, Some(uint), _) => cel::Value::UInt(uint),
            (None, None, float) => cel::Value::Float(float.unwrap_or(f64::NAN)),
        },
        Value::Array(list) => list.into_iter().map(to_cel).collect::<Vec<_>>().into(),
        Value::Object(object) => {
            object.into_iter().map(|(key, item)| (key, to_cel(item))).collect::<HashMap<_, _>>().into()
        }
    }
}

/// Looks at every part of an expression once, before it is ever evaluated.
#[derive(Default)]
struct Walk<'e> {
    names: BTreeSet<&'static str>,
    steps: BTreeSet<String>,
    questions: BTreeSet<Question>,
    timely: bool,
    event_fields: BTreeSet<String>,
    whole_event: bool,
    paths: BTreeSet<String>,
    /// The variables of the comprehensions around the current part.
    bound: Vec<&'e str>,
}

impl<'e> Walk<'e> {
    /// Gives what is known about the value of the part, if it is a name or a field of one.
    fn visit(&mut self, part: &'e IdedExpr, depth: usize, nesting: usize) -> Result<Option<Place>, CompileError> {
        if depth > MAX_EXPRESSION_DEPTH {
            let message = format!("the expression is more than {MAX_EXPRESSION_DEPTH} levels deep");
            return Err(CompileError::new(message, "use `in [ … ]` instead of long chains, or split the step"));
        }
        let depth = depth + 1;
        match &part.expr {
            Expr::Literal(_) | Expr::Unspecified => {}
            Expr::Ident(name) => return self.name(name),
            Expr::Select(select) => {
                self.paths.extend(self.path(part));
                let place = match &select.operand.expr {
                    Expr::Ident(name) if self.is_free(name, STEPS) => {
                        self.names.insert(STEPS);
                        self.steps.insert(select.field.clone());
                        Place::of(STEPS)
                    }
                    Expr::Ident(name) if self.is_free(name, EVENT) => {
                        self.names.insert(EVENT);
                        self.event_fields.insert(select.field.clone());
                        Place::of(EVENT)
                    }
                    _ => self.visit(&select.operand, depth, nesting)?,
                };
                return place.map(|place| place.field(&select.field)).transpose();
            }
            Expr::Call(call) => {
                if ASKING.contains(&call.func_name.as_str()) || TIMELY.contains(&call.func_name.as_str()) {
                    return self.of_the_past(call);
                }
                check_function(&call.func_name)?;
                if call.func_name == "matches" {
                    check_regex(call.args.last(), nesting)?;
                }
                if let Some(target) = &call.target {
                    self.visit(target, depth, nesting)?;
                }
                let args: Vec<_> =
                    call.args.iter().map(|arg| self.visit(arg, depth, nesting)).collect::<Result<_, _>>()?;
                return operation(call, &args);
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, depth, nesting)?;
                self.visit(&comprehension.accu_init, depth, nesting)?;
                let nesting = nesting + 1;
                if nesting > MAX_NESTING {
                    let message = format!("comprehensions are nested more than {MAX_NESTING} deep");
                    return Err(CompileError::new(message, "look at fewer lists inside lists"));
                }
                let outside = self.bound.len();
                self.bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.bound.extend(comprehension.iter_var2.as_deref());
                for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.visit(part, depth, nesting)?;
                }
                self.bound.truncate(outside);
            }
            Expr::List(list) => {
                for item in &list.elements {
                    self.visit(item, depth, nesting)?;
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&entry.key, depth, nesting)?;
                            self.visit(&entry.value, depth, nesting)?;
                        }
                        EntryExpr::StructField(field) => {
                            self.visit(&field.value, depth, nesting)?;
                        }
                    }
                }
            }
            Expr::Struct(made) => {
                let message = format!("there is no type `{}` to build", cut(&made.type_name, 100));
                return Err(CompileError::new(message, "use a map: {\"key\": value}"));
            }
        }
        Ok(None)
    }

    /// A call whose arguments are literals only, so that what it asks is known now.
    fn of_the_past(&mut self, call: &CallExpr) -> Result<Option<Place>, CompileError> {
        let function = call.func_name.as_str();
        if call.target.is_some() {
            let message = format!("`{function}` is called on something");
            return Err(CompileError::new(message, format!("write {function}(…) by itself")));
        }
        let empty = Context::with_env(Arc::clone(&ENV));
        let literal = |part: &IdedExpr| is_literal(part).then(|| cel::Value::resolve(part, &empty).ok()).flatten();
        let arguments: Vec<_> = call.args.iter().map(literal).collect();
        if ASKING.contains(&function) {
            self.questions.insert(Question::of(function, &arguments)?);
            return Ok(None);
        }
        self.timely = true;
        let remedy = match function {
            "hour_in" => "write hour_in(\"Europe/Berlin\", 8, 18); the end is not in it, and 22, 6 goes over midnight",
            _ => "write weekday_in(\"Europe/Berlin\", [\"sat\", \"sun\"])",
        };
        let literals: Option<Vec<_>> = arguments.into_iter().collect();
        let tried = literals.map_or_else(
            || Err("every argument has to be a literal".to_owned()),
            |literals| past::timely(function, &literals, Timestamp::UNIX_EPOCH),
        );
        tried.map(|_| None).map_err(|why| CompileError::new(format!("`{function}(…)`: {why}"), remedy))
    }

    fn name(&mut self, name: &str) -> Result<Option<Place>, CompileError> {
        if self.bound.contains(&name) || TYPES.contains(&name) {
            return Ok(None);
        }
        if name == STEPS {
            let remedy = "write steps.NAME with `_` for every `-` of the name, such as steps.tell_security.state";
            return Err(CompileError::new("`steps` is used as a whole", remedy));
        }
        match Facts::names().find(|known| *known == name) {
            Some(known) => {
                self.names.insert(known);
                self.paths.insert(known.to_owned());
                self.whole_event |= known == EVENT;
                Ok(Place::of(known))
            }
            None => Err(CompileError::unknown_name(name)),
        }
    }

    /// A way that leads from a name of the facts through fields, and nothing else.
    fn path(&self, part: &IdedExpr) -> Option<String> {
        match &part.expr {
            Expr::Ident(name) => {
                (Facts::shape(name).is_some() && !self.bound.contains(&name.as_str())).then(|| name.clone())
            }
            Expr::Select(select) => Some(format!("{}.{}", self.path(&select.operand)?, select.field)),
            _ => None,
        }
    }

    /// Whether this is that name of the facts, and not the variable of a comprehension.
    fn is_free(&self, name: &str, known: &str) -> bool {
        name == known && !self.bound.contains(&name)
    }
}

/// Looks at an operation on what is known: `risk["level"]` is a field, and a level compared with a literal has to be able to
/// be equal to it.
fn operation(call: &CallExpr, known: &[Option<Place>]) -> Result<Option<Place>, CompileError> {
    let ([left, right], [left_known, right_known]) = (call.args.as_slice(), known) else {
        return Ok(None);
    };
    match (call.func_name.as_str(), left_known, right_known, &right.expr) {
        (operators::INDEX, Some(place), _, Expr::Literal(LiteralValue::String(field))) => {
            return place.field(field.inner()).map(Some);
        }
        (operators::EQUALS | operators::NOT_EQUALS, Some(place), _, _) => check_literal(place, right)?,
        (operators::EQUALS | operators::NOT_EQUALS, _, Some(place), _) => check_literal(place, left)?,
        (operators::IN, Some(place), _, Expr::List(list)) => {
            list.elements.iter().try_for_each(|item| check_literal(place, item))?;
        }
        _ => {}
    }
    Ok(None)
}

fn is_literal(part: &IdedExpr) -> bool {
    match &part.expr {
        Expr::Literal(_) => true,
        Expr::List(list) => list.elements.iter().all(|item| matches!(item.expr, Expr::Literal(_))),
        _ => false,
    }
}

fn check_literal(place: &Place, part: &IdedExpr) -> Result<(), CompileError> {
    match &part.expr {
        Expr::Literal(LiteralValue::String(text)) => place.check_literal(Some(text.inner())),
        Expr::Literal(_) => place.check_literal(None),
        _ => Ok(()),
    }
}

/// Facts with every field filled whose form is known, for a condition that reads these names and steps.
fn sample(names: &BTreeSet<&'static str>, steps: &BTreeSet<String>) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    add_asking(&mut context, Answers::Sample);
    add_timely(&mut context, Some(Timestamp::UNIX_EPOCH));
    for name in names {
        let value = match Facts::shape(name) {
            Some(Shape::Each(fields)) => {
                Some(steps.iter().filter_map(|step| Some((step.clone(), Shape::Record(fields).sample()?))).collect())
            }
            shape => shape.and_then(Shape::sample),
        };
        if let Some(value) = value {
            context.add_variable_from_value(*name, to_cel(value));
        }
    }
    context
}

/// Answers every operand of `&&`, `||`, `!` and every branch of `? :` by itself, so that one that is skipped for the sample is
/// seen too, and refuses what answers with something other than true or false. What can't be answered without an event is
/// left to the event. Recurses no deeper than the walk before it.
fn check_answers(part: &IdedExpr, sample: &Context) -> Result<(), CompileError> {
    if let Expr::Call(call) = &part.expr
        && [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT, operators::CONDITIONAL]
            .contains(&call.func_name.as_str())
    {
        return call.args.iter().try_for_each(|arg| check_answers(arg, sample));
    }
    match cel::Value::resolve(part, sample) {
        Ok(cel::Value::Bool(_)) | Err(_) => Ok(()),
        Ok(other) => {
            let what =
                field_path(part).map_or_else(|| "a part of the condition".to_owned(), |path| format!("`{path}`"));
            let message = format!("{what} is of type {}, not true or false", other.type_of());
            Err(CompileError::new(message, "compare it with something, such as risk.level == \"HIGH\""))
        }
    }
}

/// The part as it was written, if it is a name or a field of one.
fn field_path(part: &IdedExpr) -> Option<String> {
    match &part.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", field_path(&select.operand)?, select.field)),
        _ => None,
    }
}

fn check_function(name: &str) -> Result<(), CompileError> {
    // The interpreter names operators `_+_`, `!_`, `-_`, `@in`; nothing that a person can write as a call.
    let second = name.chars().nth(1);
    let is_operator = name.starts_with(['!', '-', '@'])
        || (name.starts_with('_') && !second.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_'));
    if is_operator || FUNCTIONS.contains(&name) {
        return Ok(());
    }
    let message = format!("there is no function `{}`", cut(name, 100));
    let known: Vec<_> = FUNCTIONS.iter().chain(&ASKING).chain(&TIMELY).copied().collect();
    let remedy = format!("functions are has, all, exists, exists_one, map, filter, {}", known.join(", "));
    Err(CompileError::new(message, remedy))
}

/// A pattern must stand in the condition itself: a pattern from an event would be evaluated event text. It is tried once
/// here, so that a wrong one is told by `check`.
fn check_regex(pattern: Option<&IdedExpr>, nesting: usize) -> Result<(), CompileError> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        let remedy = "write the regular expression in quotes; to look for other text use contains(…)";
        return Err(CompileError::new("the regular expression of `matches` is not a literal", remedy));
    };
    let pattern = pattern.inner();
    if pattern.len() > MAX_REGEX || nesting >= MAX_NESTING {
        let message = format!("a regular expression is longer than {MAX_REGEX} bytes or two lists deep");
        return Err(CompileError::new(message, "make it shorter, or use contains(…) inside inner lists"));
    }
    let trial = format!("''.matches({})", Value::from(pattern));
    let tried = ENV.compile(&trial).ok().map(|program| program.execute(&Context::with_env(Arc::clone(&ENV))));
    match tried {
        Some(Ok(_)) => Ok(()),
        _ => {
            let message = format!("`{pattern}` is not a regular expression");
            Err(CompileError::new(message, "see the syntax of the Rust crate regex; look-around is not in it"))
        }
    }
}

#[cfg(test)]
mod tests;
