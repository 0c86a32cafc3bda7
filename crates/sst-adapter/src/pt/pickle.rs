//! Reading a pickle of tensors without executing it.
//!
//! A pickle is a program for a stack machine (Python's `pickletools` describes the opcodes), and one that unpickles freely
//! runs whatever function the file names. This machine knows the opcodes that a dictionary of tensors needs and the few
//! names it refers to; every other opcode and name is refused. Containers live in two lists and values refer to them by
//! index, so neither nesting nor sharing costs stack or memory beyond the file's size.

use crate::Error;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Dimensions of a tensor at most; a LoRA factor has two, a convolution's four.
const MAX_DIMENSIONS: usize = 8;

/// Number type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    Bf16,
}

impl Element {
    /// Little-endian numbers, rounded to f32.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b) as f32)
                .collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Bf16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }
}

/// A tensor as the pickle describes it: a strided view of a storage, which is a file of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SavedTensor {
    /// Name of the storage.
    pub storage: Rc<str>,
    pub element: Element,
    /// Index of the first entry in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Entries of the storage from one index to the next, per dimension.
    pub strides: Vec<usize>,
}

/// The named tensors of a pickled dictionary, or of the only dictionary that it holds, in the file's order.
pub(super) fn read_tensors(pickle: &[u8]) -> Result<Vec<(Rc<str>, SavedTensor)>, Error> {
    let mut machine = Machine {
        bytes: pickle,
        ..Machine::default()
    };
    let top = machine.run()?;
    machine.tensors(top)
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    None,
    Bool,
    Int(i64),
    Text(Rc<str>),
    Name(Name),
    /// Index into the machine's tuples.
    Tuple(usize),
    /// Index into the machine's dictionaries.
    Dict(usize),
    Storage(Rc<str>, Element),
    /// Index into the machine's tensors.
    Tensor(usize),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool => "a truth value",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::Name(_) => "a function",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Storage(..) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

/// Opcodes as characters, each before its name, and those from 0x80 on in order: only to name what is refused.
const ASCII: &str = "(MARK .STOP 0POP 1POP_MARK 2DUP FFLOAT IINT JBININT KBININT1 LLONG MBININT2 NNONE PPERSID QBINPERSID \
    RREDUCE SSTRING TBINSTRING USHORT_BINSTRING VUNICODE XBINUNICODE aAPPEND bBUILD cGLOBAL dDICT }EMPTY_DICT eAPPENDS \
    gGET hBINGET iINST jLONG_BINGET lLIST ]EMPTY_LIST oOBJ pPUT qBINPUT rLONG_BINPUT sSETITEM tTUPLE )EMPTY_TUPLE \
    uSETITEMS GBINFLOAT BBINBYTES CSHORT_BINBYTES";
const HIGH: &str = "PROTO NEWOBJ EXT1 EXT2 EXT4 TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE LONG1 LONG4 SHORT_BINUNICODE \
    BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET NEWOBJ_EX STACK_GLOBAL MEMOIZE FRAME BYTEARRAY8 NEXT_BUFFER \
    READONLY_BUFFER";

fn opcode_name(opcode: u8) -> &'static str {
    let found = match opcode.checked_sub(0x80) {
        Some(high) => HIGH.split_whitespace().nth(high.into()),
        None => ASCII
            .split_whitespace()
            .find_map(|entry| entry.strip_prefix(char::from(opcode))),
    };
    found.unwrap_or("unknown")
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    /// Where the next byte is read.
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value>,
    tuples: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    tensors: Vec<SavedTensor>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, Error> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                0x80 => match self.byte()? {
                    2 => {}
                    other => return self.refuse(format!("protocol {other} is not supported, only 2")),
                },
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let bytes = self.take()?;
                    self.stack.push(Value::Int(i32::from_le_bytes(bytes).into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.stack.push(Value::Int(value.into()));
                }
                b'M' => {
                    let bytes = self.take()?;
                    self.stack.push(Value::Int(u16::from_le_bytes(bytes).into()));
                }
                0x8a => self.long()?,
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?) as usize;
                    let text = self.slice(length)?;
                    match std::str::from_utf8(text) {
                        Ok(text) => self.stack.push(Value::Text(text.into())),
                        Err(_) => return self.refuse("a text is not UTF-8"),
                    }
                }
                b'c' => {
                    let name = self.name()?;
                    self.stack.push(Value::Name(name));
                }
                b'q' => {
                    let key = self.byte()?.into();
                    self.remember(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.remember(key)?;
                }
                b'h' => {
                    let key = self.byte()?.into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.recall(key)?;
                }
                b')' => self.push_tuple(Vec::new()),
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let items = self.pop_many(count)?;
                    self.push_tuple(items);
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push_tuple(items);
                }
                b'}' => self.push_dict(),
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(items)?;
                }
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                b'b' => self.build()?,
                other => {
                    let name = opcode_name(other);
                    return self.refuse(format!(
                        "opcode {name} (0x{other:02x}) has no place in a file of tensors"
                    ));
                }
            }
        }
    }

    /// The tensors of the dictionary `top`, or of the only dictionary in it.
    fn tensors(&self, top: Value) -> Result<Vec<(Rc<str>, SavedTensor)>, Error> {
        let Value::Dict(mut dict) = top else {
            return self.refuse(format!(
                "the file holds {}, expected a dictionary of tensors",
                top.kind()
            ));
        };
        if let [(_, Value::Dict(inner))] = self.dicts[dict][..] {
            dict = inner;
        }
        let entries = self.dicts[dict].iter();
        entries
            .map(|(key, value)| match (key, value) {
                (Value::Text(name), Value::Tensor(tensor)) => Ok((Rc::clone(name), self.tensors[*tensor].clone())),
                (Value::Text(name), other) => {
                    self.refuse(format!("entry `{name}` is {}, expected a tensor", other.kind()))
                }
                (key, _) => self.refuse(format!("a key is {}, expected a text", key.kind())),
            })
            .collect()
    }

    fn name(&mut self) -> Result<Name, Error> {
        let (module, name) = (self.line()?, self.line()?);
        Ok(match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Name::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Name::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Name::RebuildParameter,
            ("torch", "DoubleStorage") => Name::Storage(Element::F64),
            ("torch", "FloatStorage") => Name::Storage(Element::F32),
            ("torch", "HalfStorage") => Name::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Name::Storage(Element::Bf16),
            _ => {
                return self.refuse(format!(
                    "the name {} is refused: a file of tensors needs OrderedDict, _rebuild_tensor_v2, _rebuild_parameter \
                     and storages of f64, f32, f16 and bf16 only",
                    format!("{module}.{name}").escape_debug()
                ));
            }
        })
    }

    /// A persistent id: ("storage", type, key, device, number of entries).
    fn storage(&mut self) -> Result<(), Error> {
        let id = self.pop()?;
        match self.tuple(&id)? {
            [
                Value::Text(kind),
                Value::Name(Name::Storage(element)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(_),
            ] if **kind == *"storage" => {
                let storage = Value::Storage(key.clone(), *element);
                self.stack.push(storage);
                Ok(())
            }
            _ => self.refuse("a persistent id is not that of a storage"),
        }
    }

    fn call(&mut self) -> Result<(), Error> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let arguments = self.tuple(&arguments)?;
        match (function, arguments) {
            (Value::Name(Name::OrderedDict), []) => self.push_dict(),
            // (tensor, requires_grad, backward_hooks)
            (Value::Name(Name::RebuildParameter), [Value::Tensor(tensor), _, _]) => {
                let tensor = Value::Tensor(*tensor);
                self.stack.push(tensor);
            }
            // (storage, offset, shape, strides, requires_grad, backward_hooks[, metadata])
            (
                Value::Name(Name::RebuildTensor),
                [
                    Value::Storage(storage, element),
                    Value::Int(offset),
                    shape,
                    strides,
                    _,
                    _,
                    ..,
                ],
            ) => {
                let tensor = SavedTensor {
                    storage: storage.clone(),
                    element: *element,
                    offset: self.size(*offset)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                if tensor.shape.len() != tensor.strides.len() {
                    return self.refuse("a tensor has more or fewer strides than dimensions");
                }
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(tensor);
            }
            (function, arguments) => {
                let count = arguments.len();
                return self.refuse(format!(
                    "a call of {} with {count} arguments is refused",
                    function.kind()
                ));
            }
        }
        Ok(())
    }

    /// Attributes of an ordered dictionary, such as a state dictionary's versions: read, and not needed.
    fn build(&mut self) -> Result<(), Error> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            _ => self.refuse("attributes are set on what is no dictionary"),
        }
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), Error> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.last() {
            Some(Value::Dict(dict)) if rest.is_empty() => {
                let pairs = pairs.iter().map(|[key, value]| (key.clone(), value.clone()));
                self.dicts[*dict].extend(pairs);
                Ok(())
            }
            _ => self.refuse("entries are no pairs, or are set on what is no dictionary"),
        }
    }

    fn long(&mut self) -> Result<(), Error> {
        let length = self.byte()?.into();
        let bytes = self.slice(length)?;
        if length > 8 {
            return self.refuse("a number is longer than 64 bits");
        }
        // Two's complement, little-endian: the sign fills the rest.
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut whole = [fill; 8];
        whole[..length].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn tuple(&self, value: &Value) -> Result<&[Value], Error> {
        match value {
            Value::Tuple(tuple) => Ok(&self.tuples[*tuple]),
            other => self.refuse(format!("{} stands where a tuple belongs", other.kind())),
        }
    }

    fn sizes(&self, value: &Value) -> Result<Vec<usize>, Error> {
        let sizes = self.tuple(value)?;
        if sizes.len() > MAX_DIMENSIONS {
            return self.refuse(format!(
                "a tensor has {} dimensions, more than {MAX_DIMENSIONS}",
                sizes.len()
            ));
        }
        sizes
            .iter()
            .map(|size| match size {
                Value::Int(size) => self.size(*size),
                other => self.refuse(format!("{} stands where a size belongs", other.kind())),
            })
            .collect()
    }

    fn size(&self, size: i64) -> Result<usize, Error> {
        usize::try_from(size).or_else(|_| self.refuse(format!("{size} stands where a size belongs")))
    }

    fn remember(&mut self, key: u32) -> Result<(), Error> {
        match self.stack.last() {
            Some(value) => {
                self.memo.insert(key, value.clone());
                Ok(())
            }
            None => self.refuse("nothing is there to be remembered"),
        }
    }

    fn recall(&mut self, key: u32) -> Result<(), Error> {
        match self.memo.get(&key) {
            Some(value) => {
                self.stack.push(value.clone());
                Ok(())
            }
            None => self.refuse(format!("memo {key} was never set")),
        }
    }

    /// Pops a value above the last mark.
    fn pop(&mut self) -> Result<Value, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => self.refuse("the stack is empty"),
        }
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, Error> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Error> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.refuse("a mark is missing"),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(N)?);
        Ok(out)
    }

    fn line(&mut self) -> Result<String, Error> {
        let rest = &self.bytes[self.at..];
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(length) => {
                self.at += length + 1;
                Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
            }
            None => self.refuse("the pickle is cut short"),
        }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        match rest.get(..length) {
            Some(slice) => {
                self.at += length;
                Ok(slice)
            }
            None => self.refuse("the pickle is cut short"),
        }
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, Error> {
        Err(Error::Torch {
            entry: format!("data.pkl, byte {}", self.at),
            reason: reason.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pickle of protocol 2 from its parts, without the end.
    fn program(parts: &[&[u8]]) -> Vec<u8> {
        [&[0x80, 2][..]]
            .iter()
            .chain(parts)
            .flat_map(|part| part.iter().copied())
            .collect()
    }

    fn text(value: &str) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap().to_le_bytes();
        [b"X", &length[..], value.as_bytes()].concat()
    }

    /// A tensor of type `storage`, shape [2, 3] and offset 1, as torch spells it.
    fn tensor(storage: &str) -> Vec<u8> {
        [
            b"ctorch._utils\n_rebuild_tensor_v2\nq\x01((",
            &text("storage")[..],
            format!("ctorch\n{storage}\n").as_bytes(),
            &text("7"),
            &text("cpu"),
            b"K\x08tQK\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR",
        ]
        .concat()
    }

    fn saved(element: Element) -> SavedTensor {
        SavedTensor {
            storage: "7".into(),
            element,
            offset: 1,
            shape: vec![2, 3],
            strides: vec![3, 1],
        }
    }

    fn message(parts: &[&[u8]]) -> String {
        read_tensors(&program(parts)).unwrap_err().to_string()
    }

    #[test]
    fn dictionaries_of_tensors_are_read() {
        for (storage, element) in [
            ("DoubleStorage", Element::F64),
            ("FloatStorage", Element::F32),
            ("HalfStorage", Element::F16),
            ("BFloat16Storage", Element::Bf16),
        ] {
            let (name, tensor) = (text("a"), tensor(storage));
            let want = [(Rc::<str>::from("a"), saved(element))];
            let plain = program(&[b"}", &name, &tensor, b"s."]);
            assert_eq!(read_tensors(&plain).unwrap(), want);
            let ordered = program(&[b"ccollections\nOrderedDict\n)R(", &name, &tensor, b"u}b."]);
            assert_eq!(read_tensors(&ordered).unwrap(), want);
            let nested = program(&[b"}", &text("state_dict"), b"}", &name, &tensor, b"ss."]);
            assert_eq!(read_tensors(&nested).unwrap(), want);
            let parameter = program(&[
                b"}",
                &name,
                b"ctorch._utils\n_rebuild_parameter\n",
                &tensor,
                b"\x88}\x87Rs.",
            ]);
            assert_eq!(read_tensors(&parameter).unwrap(), want);
        }
    }

    #[test]
    fn what_is_remembered_is_shared() {
        // The dictionary is remembered before it has an entry, and filled through the copy.
        let (name, tensor) = (text("a"), tensor("FloatStorage"));
        let pickle = program(&[b"}q\x05h\x05", &name, &tensor, b"s."]);
        assert_eq!(read_tensors(&pickle).unwrap().len(), 1);
        let pickle = program(&[b"}r\x05\x01\0\0j\x05\x01\0\0", &name, &tensor, b"s."]);
        assert_eq!(read_tensors(&pickle).unwrap().len(), 1);
    }

    #[test]
    fn functions_are_refused_by_name_and_not_called() {
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("torch", "load"),
            ("torch._utils", "_rebuild_tensor"),
        ] {
            let global = format!("c{module}\n{name}\n");
            let message = message(&[global.as_bytes(), &text("true"), b"\x85R."]);
            assert!(message.contains(&format!("{module}.{name} is refused")), "{message}");
        }
        let message = message(&[b"c\x1b[2J\r\nx\n."]);
        assert!(message.contains("\\u{1b}[2J\\r.x"), "{message}");
    }

    #[test]
    fn opcodes_are_refused_by_name() {
        for (program, name) in [
            (&b"cos\nsystem\n"[..], "os.system"),
            (b"ios\nsystem\n", "opcode INST (0x69)"),
            (b"(oX", "opcode OBJ (0x6f)"),
            (b")\x81", "opcode NEWOBJ (0x81)"),
            (b"\x93", "opcode STACK_GLOBAL (0x93)"),
            (b"\x95", "opcode FRAME (0x95)"),
            (b"\x98", "opcode READONLY_BUFFER (0x98)"),
            (b"]", "opcode EMPTY_LIST (0x5d)"),
            (b"G", "opcode BINFLOAT (0x47)"),
            (b"\xff", "opcode unknown (0xff)"),
            (b"\x80\x04", "protocol 4"),
        ] {
            let message = message(&[program]);
            assert!(message.contains(name) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn nonsense_is_refused_where_it_stands() {
        let (name, tensor) = (text("a"), tensor("FloatStorage"));
        for (parts, words) in [
            (vec![&b"."[..]], "the stack is empty"),
            (vec![b"K\x01."], "the file holds a number"),
            (vec![b"})."], "the file holds a tuple"),
            (vec![b"}K\x01Ns."], "a key is a number"),
            (vec![b"}", &name, b"Ns."], "entry `a` is nothing"),
            (
                vec![b"}", &name, b"}s", &text("b"), b"Ns."],
                "entry `a` is a dictionary",
            ),
            (vec![b"}(K\x01u."], "no dictionary"),
            (vec![b"K\x01K\x01K\x01s."], "no dictionary"),
            (vec![b"}u."], "a mark is missing"),
            (vec![b"K\x01(\x85."], "the stack is empty"),
            (vec![b"h\x01."], "memo 1 was never set"),
            (vec![b"q\x01."], "nothing is there"),
            (vec![b"K\x01)b."], "no dictionary"),
            (vec![b"K\x01)R."], "a call of a number with 0 arguments"),
            (
                vec![b"ccollections\nOrderedDict\nK\x01\x85R."],
                "a call of a function with 1 arguments",
            ),
            (vec![b"K\x01Q."], "a number stands where a tuple belongs"),
            (vec![b")Q."], "not that of a storage"),
            (vec![b"\x8a\x09123456789."], "longer than 64 bits"),
            (vec![b"X\xff\xff\xff\xffabc"], "cut short"),
            (vec![b"ctorch"], "cut short"),
            (vec![b"X\x01\0\0\0\xff."], "not UTF-8"),
        ] {
            let message = message(&parts);
            assert!(
                message.contains(words) && message.starts_with("data.pkl, byte "),
                "{message}"
            );
        }
        let at = tensor.windows(4).position(|w| w == b"K\x01K\x02").unwrap();
        let below = [&tensor[..at], b"\x8a\x01\xff", &tensor[at + 2..]].concat();
        let refusal = |tensor: &[u8]| message(&[b"}", &name, tensor, b"s."]);
        let message = refusal(&below);
        assert!(message.contains("-1 stands where a size belongs"), "{message}");
        // The shape is [2, 3] no more, but [1, 1, 1, 1, 1, 1, 1, 1, 1].
        let shape = tensor.windows(5).position(|w| w == b"K\x02K\x03\x86").unwrap();
        let long = [&tensor[..shape], b"(", &b"K\x01".repeat(9), b"t", &tensor[shape + 5..]].concat();
        let message = refusal(&long);
        assert!(message.contains("9 dimensions, more than 8"), "{message}");
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = [&b"}"[..], &text("a"), b")", &b"\x85".repeat(1_000_000), b"s."].concat();
        assert!(message(&[&deep]).contains("entry `a` is a tuple"));
    }

    #[test]
    fn numbers_are_twos_complement() {
        for (bytes, want) in [
            (&b"\x8a\x00"[..], 0),
            (b"\x8a\x01\x7f", 127),
            (b"\x8a\x01\x80", -128),
            (b"\x8a\x05\x00\x00\x00\x00\x01", 1 << 32),
            (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"J\xff\xff\xff\xff", -1),
            (b"M\xff\xff", 65535),
        ] {
            let program = [bytes, b"."].concat();
            let mut machine = Machine {
                bytes: &program,
                ..Machine::default()
            };
            assert_eq!(machine.run().unwrap(), Value::Int(want));
        }
    }
}
