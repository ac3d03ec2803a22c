//! A function's body as a tree.

use crate::sql::types::oids;

/// A function.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Arguments first, then all variables of all blocks.
    pub variables: Vec<Variable>,
    /// Names in scope, by number.
    pub scopes: Vec<Scope>,
    /// How many expressions and statements it has.
    pub expressions: usize,
    /// Its outer block.
    pub body: Block,
    /// `found`.
    pub found: usize,
    /// Of a trigger's function: `old`, `new`, then [`TRIGGER_VARIABLES`] in order.
    pub trigger: Option<usize>,
}

/// What a trigger's function may ask of its call, after `old` and `new`.
pub const TRIGGER_VARIABLES: [(&str, u32); 10] = [
    ("tg_name", oids::NAME),
    ("tg_when", oids::TEXT),
    ("tg_level", oids::TEXT),
    ("tg_op", oids::TEXT),
    ("tg_relid", oids::OID),
    ("tg_relname", oids::NAME),
    ("tg_table_name", oids::NAME),
    ("tg_table_schema", oids::NAME),
    ("tg_nargs", oids::INT4),
    ("tg_argv", oids::TEXT_ARRAY),
];

/// Names of one block.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The block around it.
    pub parent: Option<usize>,
    /// Its label.
    pub label: Option<String>,
    /// Names and variables.
    pub names: Vec<(String, usize)>,
}

/// A variable as declared.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its type as written.
    pub ty: TypeName,
    /// CONSTANT.
    pub constant: bool,
    /// NOT NULL.
    pub not_null: bool,
    /// Its first value.
    pub default: Option<Expr>,
    /// Where it is declared.
    pub line: u32,
    /// The query of a cursor, and its arguments.
    pub cursor: Option<(Expr, Vec<usize>)>,
}

/// A type as written.
#[derive(Clone, Debug)]
pub enum TypeName {
    /// By name.
    Named(String),
    /// `record`.
    Record,
    /// `name%TYPE`, `table.column%TYPE`.
    Same(Vec<String>),
    /// `table%ROWTYPE`.
    RowOf(Vec<String>),
    /// Known already: type and modifier.
    Known(u32, i32),
}

/// Text that is bound when it first runs.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Number within the function.
    pub id: usize,
    /// A whole statement.
    pub text: String,
    /// As written, for messages.
    pub shown: String,
    /// Names it sees.
    pub scope: usize,
}

/// BEGIN to END.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its label.
    pub label: Option<String>,
    /// Variables it declares.
    pub declared: Vec<usize>,
    /// What it does.
    pub body: Vec<Stmt>,
    /// EXCEPTION: conditions and what to do.
    pub handlers: Vec<Handler>,
    /// `sqlstate` and `sqlerrm`, if it has handlers.
    pub error: Option<(usize, usize)>,
}

/// WHEN ... THEN of an EXCEPTION part.
#[derive(Clone, Debug)]
pub struct Handler {
    /// SQLSTATEs; `None` is OTHERS.
    pub states: Vec<Option<String>>,
    /// What to do.
    pub body: Vec<Stmt>,
}

/// A statement and its line.
#[derive(Clone, Debug)]
pub struct Stmt {
    /// From 1, in the body.
    pub line: u32,
    /// What it is.
    pub kind: StmtKind,
}

/// Where a value goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// A variable.
    Variable(usize),
    /// A field of a record.
    Field(usize, String),
    /// An element of an array variable: subscripts, as expressions.
    Element(usize, Vec<Expr>),
}

/// INTO.
#[derive(Clone, Debug)]
pub struct Into {
    /// Where to.
    pub targets: Vec<Target>,
    /// STRICT.
    pub strict: bool,
}

/// What a loop over rows reads.
#[derive(Clone, Debug)]
pub enum Rows {
    /// A query.
    Query(Expr),
    /// EXECUTE with its USING.
    Dynamic(Expr, Vec<Expr>),
    /// A cursor variable with arguments.
    Cursor(usize, Vec<Expr>),
}

/// A statement.
#[derive(Clone, Debug)]
pub enum StmtKind {
    /// A block.
    Block(Block),
    /// `target := expr`.
    Assign(Target, Expr),
    /// IF: conditions with bodies, ELSE.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    /// CASE: a variable for the tested value and its expression, arms, ELSE.
    Case(Option<(usize, Expr)>, Vec<(Expr, Vec<Stmt>)>, Option<Vec<Stmt>>),
    /// LOOP.
    Loop(Option<String>, Vec<Stmt>),
    /// WHILE.
    While(Option<String>, Expr, Vec<Stmt>),
    /// FOR over integers: variable, from, to, step, reverse.
    For(Option<String>, usize, Expr, Expr, Option<Expr>, bool, Vec<Stmt>),
    /// FOR over rows.
    ForRows(Option<String>, Vec<Target>, Rows, Vec<Stmt>),
    /// FOREACH: target, slice, array.
    ForEach(Option<String>, Target, usize, Expr, Vec<Stmt>),
    /// EXIT (true) and CONTINUE, with label and WHEN.
    Exit(bool, Option<String>, Option<Expr>),
    /// RETURN.
    Return(Option<Expr>),
    /// RETURN NEXT.
    ReturnNext(Option<Expr>),
    /// RETURN QUERY.
    ReturnQuery(Rows),
    /// RAISE.
    Raise(Raise),
    /// ASSERT.
    Assert(Expr, Option<Expr>),
    /// PERFORM.
    Perform(Expr),
    /// EXECUTE.
    Execute(Expr, Option<Into>, Vec<Expr>),
    /// An SQL statement.
    Sql(Expr, Option<Into>),
    /// GET DIAGNOSTICS: STACKED, targets and items.
    Diagnostics(bool, Vec<(Target, String)>),
    /// OPEN: cursor, its query, if given here.
    Open(usize, Option<Rows>, Vec<Expr>),
    /// FETCH and MOVE (no targets): cursor.
    Fetch(usize, Vec<Target>),
    /// CLOSE.
    Close(usize),
    /// COMMIT (true), ROLLBACK.
    Transaction(bool),
    /// NULL.
    Nothing,
}

/// RAISE.
#[derive(Clone, Debug, Default)]
pub struct Raise {
    /// `EXCEPTION`, `NOTICE`, ...; `None`: raise again what is handled.
    pub level: Option<&'static str>,
    /// Condition name or SQLSTATE, as a SQLSTATE.
    pub state: Option<String>,
    /// The condition's name, which is the message without another.
    pub condition: Option<String>,
    /// Format.
    pub format: Option<String>,
    /// For its `%`.
    pub args: Vec<Expr>,
    /// USING.
    pub options: Vec<(String, Expr)>,
}

impl StmtKind {
    /// As messages name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Block(_) => "statement block",
            Self::Assign(..) => "assignment",
            Self::If(..) => "IF",
            Self::Case(..) => "CASE",
            Self::Loop(..) => "LOOP",
            Self::While(..) => "WHILE",
            Self::For(..) => "FOR with integer loop variable",
            Self::ForRows(_, _, Rows::Query(_), _) => "FOR over SELECT rows",
            Self::ForRows(_, _, Rows::Dynamic(..), _) => "FOR over EXECUTE statement",
            Self::ForRows(_, _, Rows::Cursor(..), _) => "FOR over cursor",
            Self::ForEach(..) => "FOREACH over array",
            Self::Exit(true, ..) => "EXIT",
            Self::Exit(false, ..) => "CONTINUE",
            Self::Return(_) => "RETURN",
            Self::ReturnNext(_) => "RETURN NEXT",
            Self::ReturnQuery(_) => "RETURN QUERY",
            Self::Raise(_) => "RAISE",
            Self::Assert(..) => "ASSERT",
            Self::Perform(_) => "PERFORM",
            Self::Execute(..) => "EXECUTE",
            Self::Sql(..) => "SQL statement",
            Self::Diagnostics(..) => "GET DIAGNOSTICS",
            Self::Open(..) => "OPEN",
            Self::Fetch(..) => "FETCH",
            Self::Close(_) => "CLOSE",
            Self::Transaction(true) => "COMMIT",
            Self::Transaction(false) => "ROLLBACK",
            Self::Nothing => "NULL",
        }
    }
}
