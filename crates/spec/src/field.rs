//! The names that config.json may use, taken from oci-spec's types themselves, so that no list of ours can lag behind.
//!
//! A derived `Deserialize` tells its deserializer the names of its fields. The deserializer here reads nothing: it writes
//! down what it is asked for, and answers with whatever keeps the questions coming.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use serde::de::value::{Error as Never, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

/// What a place in the document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// An object with these members.
    Object(BTreeMap<&'static str, Shape>),
    /// An object whose member names are free (`annotations`, `sysctl`); each holds the same.
    Map(Box<Shape>),
    /// An array.
    Array(Box<Shape>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string, a number or a boolean.
    Scalar,
}

/// Members that the specification has and oci-spec's types lack or spell otherwise: they are no mistakes of whoever wrote
/// the file. And what becomes of them.
const BESIDE_THE_TYPES: &[(&str, &str)] = &[
    ("/freebsd", "is for another platform: ignored"),
    ("/linux/intelRdt/enableCMT", "gave way to enableMonitoring in runtime-spec 1.3: ignored"),
    ("/linux/intelRdt/enableMBM", "gave way to enableMonitoring in runtime-spec 1.3: ignored"),
];

/// Members that the types have and that do nothing here.
const FOR_OTHERS: &[&str] = &["/windows", "/solaris", "/zos", "/vm", "/process/commandLine", "/process/user/username"];

/// Members that the types have and the specification does not.
const IN_THE_TYPES_ALONE: &[&str] =
    &["/uidMappings", "/gidMappings", "/linux/intelRdt/enableCmt", "/linux/intelRdt/enableMbm"];

impl Shape {
    /// The shape of a type.
    pub fn of<T: DeserializeOwned>() -> Self {
        let mut found = Self::Scalar;
        // Fails where a type takes only some strings; what was asked for until then is what there is to learn.
        let _learnt = T::deserialize(Tracer(&mut found));
        found
    }

    /// The shape of config.json, as the specification has it.
    pub fn config() -> Self {
        let mut shape = Self::of::<Spec>();
        for pointer in IN_THE_TYPES_ALONE {
            let (object, name) = pointer.rsplit_once('/').unwrap_or_default();
            if let Some(Self::Object(members)) = shape.descend(object) {
                members.remove(name);
            }
        }
        shape
    }

    fn descend(&mut self, pointer: &str) -> Option<&mut Self> {
        pointer.split('/').skip(1).try_fold(self, |shape, name| match shape {
            Self::Object(members) => members.get_mut(name),
            _ => None,
        })
    }

    /// The JSON pointer of every member, with `*` for an index or a free name: `/mounts/*/options`.
    pub fn pointers(&self) -> Vec<String> {
        let mut pointers = Vec::new();
        self.collect("", &mut pointers);
        pointers
    }

    fn collect(&self, at: &str, pointers: &mut Vec<String>) {
        match self {
            Self::Object(members) => {
                for (name, shape) in members {
                    let pointer = format!("{at}/{name}");
                    pointers.push(pointer.clone());
                    shape.collect(&pointer, pointers);
                }
            }
            Self::Map(inner) | Self::Array(inner) => inner.collect(&format!("{at}/*"), pointers),
            Self::Word(_) | Self::Scalar => {}
        }
    }
}

/// What is ignored at `pointer`, a place that the specification knows.
pub(crate) fn ignored(pointer: &str) -> Option<&'static str> {
    if FOR_OTHERS.contains(&pointer) {
        return Some("is for another platform: ignored");
    }
    BESIDE_THE_TYPES.iter().find(|(known, _)| *known == pointer).map(|(_, remark)| *remark)
}

/// Writes the shape of what it is asked for into its place.
struct Tracer<'a>(&'a mut Shape);

macro_rules! scalars {
    ($($method:ident $visit:ident($value:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> { visitor.$visit($value) })*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Never;

    scalars! {
        deserialize_bool visit_bool(false);
        deserialize_i8 visit_i8(0);
        deserialize_i16 visit_i16(0);
        deserialize_i32 visit_i32(0);
        deserialize_i64 visit_i64(0);
        deserialize_u8 visit_u8(0);
        deserialize_u16 visit_u16(0);
        deserialize_u32 visit_u32(0);
        deserialize_u64 visit_u64(0);
        deserialize_f32 visit_f32(0.0);
        deserialize_f64 visit_f64(0.0);
        deserialize_char visit_char('0');
        // Also a list of CPUs, for execCPUAffinity.
        deserialize_str visit_str("0");
        deserialize_string visit_str("0");
        deserialize_bytes visit_bytes(b"0");
        deserialize_byte_buf visit_bytes(b"0");
        deserialize_identifier visit_str("0");
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Never> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        *self.0 = Shape::Array(Box::new(Shape::Scalar));
        let Shape::Array(inner) = self.0 else { return visitor.visit_unit() };
        visitor.visit_seq(Once(Some(inner)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Never> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Never> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Never> {
        *self.0 = Shape::Map(Box::new(Shape::Scalar));
        let Shape::Map(inner) = self.0 else { return visitor.visit_unit() };
        visitor.visit_map(Once(Some(inner)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Never> {
        *self.0 = Shape::Object(fields.iter().map(|field| (*field, Shape::Scalar)).collect());
        let Shape::Object(members) = self.0 else { return visitor.visit_unit() };
        visitor.visit_map(Members { members, left: fields.iter() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Never> {
        *self.0 = Shape::Word(variants);
        visitor.visit_enum(Variant(variants.first().copied().unwrap_or_default()))
    }
}

/// One element of an array, or one member of a map.
struct Once<'a>(Option<&'a mut Box<Shape>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Never;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Never> {
        // An element that takes only some strings (a capability): then the array is as good as empty.
        Ok(self.0.take().and_then(|shape| seed.deserialize(Tracer(shape)).ok()))
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Never;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Never> {
        if self.0.is_none() {
            return Ok(None);
        }
        seed.deserialize(StrDeserializer::new("name")).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Never> {
        match self.0.take() {
            Some(shape) => seed.deserialize(Tracer(shape)),
            None => Err(de::Error::custom("no member left")),
        }
    }
}

/// Every member of a struct.
struct Members<'a> {
    members: &'a mut BTreeMap<&'static str, Shape>,
    left: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Never;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Never> {
        match self.left.as_slice().first() {
            Some(name) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Never> {
        match self.left.next().and_then(|name| self.members.get_mut(name)) {
            Some(shape) => seed.deserialize(Tracer(shape)),
            None => Err(de::Error::custom("no member left")),
        }
    }
}

/// The first word of an enumeration.
struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Never;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Never> {
        seed.deserialize(StrDeserializer::new(self.0)).map(|variant| (variant, Unit))
    }
}

/// A word has nothing in it.
struct Unit;

impl<'de> de::VariantAccess<'de> for Unit {
    type Error = Never;

    fn unit_variant(self) -> Result<(), Never> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Never> {
        Err(de::Error::custom("not a word"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Never> {
        Err(de::Error::custom("not a word"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Never> {
        Err(de::Error::custom("not a word"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_of_the_configuration_is_reached() {
        let pointers = Shape::config().pointers();
        for pointer in [
            "/ociVersion",
            "/process/user/additionalGids",
            "/process/execCPUAffinity/final",
            "/process/capabilities/ambient",
            "/mounts/*/gidMappings/*/hostID",
            "/hooks/poststop/*/timeout",
            "/annotations",
            "/linux/resources/blockIO/throttleWriteIOPSDevice/*/rate",
            "/linux/resources/rdma/*/hcaHandles",
            "/linux/seccomp/syscalls/*/args/*/valueTwo",
            "/linux/timeOffsets/*/nanosecs",
            "/linux/netDevices/*/name",
            "/linux/memoryPolicy/flags",
        ] {
            assert!(pointers.iter().any(|known| known == pointer), "{pointer}");
        }
        for pointer in IN_THE_TYPES_ALONE {
            assert!(Shape::of::<Spec>().pointers().iter().any(|known| known == pointer), "{pointer} is gone: drop it");
            assert!(!pointers.iter().any(|known| known == pointer), "{pointer}");
        }
        for pointer in FOR_OTHERS {
            assert!(pointers.iter().any(|known| known == pointer), "{pointer}");
        }
    }
}
