import { status } from '@grpc/grpc-js';
import { type ErrorKind, kindOf, messageOf } from '../src/errors.ts';

/** The one place where an error's kind becomes a gRPC code. */
const codes: Readonly<Record<ErrorKind, status>> = {
  invalid: status.INVALID_ARGUMENT,
  notFound: status.NOT_FOUND,
  alreadyExists: status.ALREADY_EXISTS,
  precondition: status.FAILED_PRECONDITION,
  unavailable: status.UNAVAILABLE,
  // Only of UNKNOWN does the kubelet's client pass the bare message on, whose prefix the kubelet then
  // looks for (cri-client/pkg/remote_image.go, kubelet/images/image_manager.go).
  registryUnavailable: status.UNKNOWN,
  deadline: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  unimplemented: status.UNIMPLEMENTED,
  exhausted: status.RESOURCE_EXHAUSTED,
  permission: status.PERMISSION_DENIED,
  internal: status.INTERNAL,
};

/** Headers hold a message; clients bound them, and the kubelet makes events of them. */
const MAX_MESSAGE = 8 * 1024;

/** What the caller is told of an error. */
export function toStatus(e: unknown): { code: status; details: string } {
  const message = messageOf(e);
  return {
    code: codes[kindOf(e)],
    details: message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message,
  };
}
