//! What the elements of a tensor can be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json::elements::Wanted;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// True or false.
    Bool,
    /// Integers from 0 to 2⁸ − 1.
    Uint8,
    /// Integers from 0 to 2¹⁶ − 1.
    Uint16,
    /// Integers from 0 to 2³² − 1.
    Uint32,
    /// Integers from 0 to 2⁶⁴ − 1.
    Uint64,
    /// Integers from −2⁷ to 2⁷ − 1.
    Int8,
    /// Integers from −2¹⁵ to 2¹⁵ − 1.
    Int16,
    /// Integers from −2³¹ to 2³¹ − 1.
    Int32,
    /// Integers from −2⁶³ to 2⁶³ − 1.
    Int64,
    /// Half precision.
    Fp16,
    /// Single precision.
    Fp32,
    /// Double precision.
    Fp64,
    /// Texts or anything else, each of its own length.
    Bytes,
    /// The upper half of single precision.
    Bf16,
}

impl Datatype {
    /// Every datatype, in the order of the protocol's table.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// The datatype of a name, which is in capitals.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Bytes of an element among binary tensors; `None` where each has its own length.
    pub const fn width(self) -> Option<u64> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// What its elements are in JSON, for messages.
    pub const fn takes(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Uint8 => "integers from 0 to 255",
            Self::Uint16 => "integers from 0 to 65535",
            Self::Uint32 => "integers from 0 to 4294967295",
            Self::Uint64 => "integers from 0 to 18446744073709551615",
            Self::Int8 => "integers from -128 to 127",
            Self::Int16 => "integers from -32768 to 32767",
            Self::Int32 => "integers from -2147483648 to 2147483647",
            Self::Int64 => "integers from -9223372036854775808 to 9223372036854775807",
            Self::Fp16 => "numbers from -65504 to 65504",
            Self::Fp32 => "numbers up to 3.4e38",
            Self::Fp64 => "numbers up to 1.8e308",
            Self::Bytes => "strings",
            Self::Bf16 => "numbers up to 3.39e38",
        }
    }

    /// What its elements have to be in JSON. Numbers are infinite from half a step above the greatest one on.
    pub(super) const fn wanted(self) -> Wanted {
        match self {
            Self::Bool => Wanted::Bool,
            Self::Uint8 => unsigned(u8::MAX as u64),
            Self::Uint16 => unsigned(u16::MAX as u64),
            Self::Uint32 => unsigned(u32::MAX as u64),
            Self::Uint64 => unsigned(u64::MAX),
            Self::Int8 => signed(i8::MAX as u64),
            Self::Int16 => signed(i16::MAX as u64),
            Self::Int32 => signed(i32::MAX as u64),
            Self::Int64 => signed(i64::MAX as u64),
            Self::Fp16 => Wanted::Float { infinite: 65_520.0 },
            Self::Fp32 => Wanted::Float { infinite: 3.402_823_567_797_336_6e38 },
            Self::Fp64 => Wanted::Float { infinite: f64::INFINITY },
            Self::Bytes => Wanted::Text,
            Self::Bf16 => Wanted::Float { infinite: 3.396_177_529_230_495_7e38 },
        }
    }
}

const fn unsigned(above: u64) -> Wanted {
    Wanted::Integer { below: 0, above }
}

const fn signed(above: u64) -> Wanted {
    Wanted::Integer { below: above + 1, above }
}

impl std::fmt::Display for Datatype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
