//! State columns: fieldless enums that are stored by name in a TEXT column of both databases.

/// Implements the text form of a fieldless enum (`ALL`, `as_str`, `parse`) and diesel's conversions, so that rows have
/// fields of the enum itself. A text that names no value fails to load with a deserialization error.
///
/// ```text
/// text_enum!(PaymentState { Processing => "processing", Captured => "captured", Failed => "failed" });
/// ```
macro_rules! text_enum {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $name {
            /// All values.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Returns the name in columns and on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Returns the value with this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == name)
            }
        }

        $crate::store::text_enum!(@columns $name);
    };
    // For an enum that has `as_str` and `parse` already.
    (@columns $name:ident) => {
        const _: () = {
            use diesel::backend::Backend;
            use diesel::deserialize::{self, FromSql, Queryable};
            use diesel::expression::AsExpression;
            use diesel::internal::derives::as_expression::Bound;
            use diesel::pg::Pg;
            use diesel::serialize::{self, IsNull, Output, ToSql};
            use diesel::sql_types::{Nullable, SingleValue, Text};
            use diesel::sqlite::Sqlite;

            impl ToSql<Text, Sqlite> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                    out.set_value(self.as_str());
                    Ok(IsNull::No)
                }
            }

            impl ToSql<Text, Pg> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                    <str as ToSql<Text, Pg>>::to_sql(self.as_str(), out)
                }
            }

            impl<B: Backend> ToSql<Nullable<Text>, B> for $name
            where
                Self: ToSql<Text, B>,
            {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, B>) -> serialize::Result {
                    <Self as ToSql<Text, B>>::to_sql(self, out)
                }
            }

            impl<B: Backend> FromSql<Text, B> for $name
            where
                String: FromSql<Text, B>,
            {
                fn from_sql(bytes: B::RawValue<'_>) -> deserialize::Result<Self> {
                    let name = String::from_sql(bytes)?;
                    Self::parse(&name).ok_or_else(|| format!("unknown {} {name}", stringify!($name)).into())
                }
            }

            impl<B: Backend, S: SingleValue> Queryable<S, B> for $name
            where
                Self: FromSql<S, B>,
            {
                type Row = Self;

                fn build(row: Self) -> deserialize::Result<Self> {
                    Ok(row)
                }
            }

            $crate::store::text_enum!(@expression $name, Text);
            $crate::store::text_enum!(@expression $name, Nullable<Text>);
        };
    };
    (@expression $name:ident, $sql:ty) => {
        impl AsExpression<$sql> for $name {
            type Expression = Bound<$sql, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl<'a> AsExpression<$sql> for &'a $name {
            type Expression = Bound<$sql, &'a $name>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }
    };
}
pub(crate) use text_enum;
