/** gRPC's status codes (grpc.github.io/grpc/core/md_doc_statuscodes.html), of which berthd sends some. */
export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

const names = new Map<Code, string>(Object.entries(Code).map(([name, code]) => [code, name]));

/** As the specification spells it: `NOT_FOUND`. */
export function codeName(code: Code): string {
  return names.get(code) ?? String(code);
}
